import { type Call, withDeadline } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { Logger } from "../../base/log.ts";
import { ended } from "../../base/retry.ts";
import type { Storage } from "../../gen/agent/agent.ts";
import { GuestDefinition } from "../../gen/kataremote/guest/v1/guest.ts";
import { GUEST_PULL_DRIVER, PULL_DIGEST_OPTION } from "../../guestwire/index.ts";
import { createClient, statusToFault, type UnaryCaller } from "../../ttrpc/index.ts";
import { imageSettings } from "./image-settings.ts";
import type { ImagesConfig } from "./images-config.ts";
import { nodeImage } from "./node-image.ts";

export interface GuestRootDeps {
  readonly caller: UnaryCaller;
  readonly config: ImagesConfig;
  readonly containerd: { readonly address: string; readonly namespace: string };
  /** `auth.json` of the pod's pull secrets; undefined: it has none. */
  readonly pullSecrets: (call: Call) => Promise<string | undefined>;
  readonly log: Logger;
}

export interface GuestRootRequest {
  readonly containerId: string;
  readonly image: string;
  readonly mountPoint: string;
  readonly annotations: Readonly<Record<string, string>>;
}

/** One call of the guest, ms. */
const STEP_MS = 20_000;
const REPORT_MS = 5_000;
/** A pod that runs does not wait longer for its pull secrets, ms. */
const SECRETS_MS = 12_000;

/**
 * The storage by which the guest pulls a container's image. Before that the guest is told how: registries, CAs and the
 * pod's pull secrets, over the tunnel. It pulls what the node's containerd found the name to mean, when that is known.
 * Source: reference §2.5, "Guest pull"; the metadata is what other agents know the pod's own container by
 */
export async function guestRootStorage(deps: GuestRootDeps, request: GuestRootRequest, call: Call): Promise<Storage> {
  const { containerId, mountPoint, annotations } = request;
  const isPause = request.image === "pause";
  const found = isPause ? { name: request.image } : await known(deps, request.image, call);
  if (!isPause) await configure(deps, call);
  deps.log.info({ container: containerId, image: found.name, digest: found.digest }, "the guest pulls the image");
  return {
    driver: GUEST_PULL_DRIVER,
    driverOptions: [
      `${GUEST_PULL_DRIVER}=${JSON.stringify({ metadata: annotations })}`,
      ...(found.digest === undefined ? [] : [`${PULL_DIGEST_OPTION}${found.digest}`]),
    ],
    source: found.name,
    fstype: "overlay",
    options: [],
    mountPoint,
    fsGroup: undefined,
    shared: false,
  };
}

/**
 * Says how far pulls are, until `work` ends.
 * @param onProgress told a line for each pull, an empty list at the end
 */
export async function reportingPulls<T>(
  deps: Pick<GuestRootDeps, "caller" | "log">,
  onProgress: (lines: readonly string[]) => void,
  work: Promise<T>,
): Promise<T> {
  const guest = createClient(GuestDefinition, deps.caller);
  const timer = setInterval(() => {
    guest.listPulls({}, { timeoutMs: STEP_MS }).then(
      ({ pulls }) => {
        const lines = pulls.map((p) => `${p.image}: ${mib(p.bytes)} of ${mib(p.totalBytes)} MiB`);
        onProgress(lines);
        if (lines.length > 0) deps.log.info({ pulls: lines }, "the guest pulls");
      },
      (err: unknown) => deps.log.debug({ err }, "the guest does not say how far its pulls are"),
    );
  }, REPORT_MS);
  timer.unref();
  try {
    return await work;
  } finally {
    clearInterval(timer);
    onProgress([]);
  }
}

async function known(deps: GuestRootDeps, image: string, call: Call): Promise<{ name: string; digest?: string }> {
  try {
    return await nodeImage(deps.containerd, image, call);
  } catch (e) {
    const fault = Fault.from(e);
    if (fault.code === "not_found" || call.signal.aborted) throw fault;
    // What the guest pulls is then what the registry says now.
    deps.log.warn({ err: e, image }, "containerd does not say which digest the image has on the node");
    return { name: image };
  }
}

async function configure(deps: GuestRootDeps, call: Call): Promise<void> {
  const settings = await imageSettings(deps.config, await podLogins(deps, call));
  const guest = createClient(GuestDefinition, deps.caller);
  const request = { settingsJson: JSON.stringify(settings) };
  try {
    await guest.setImageSettings(request, { signal: call.signal, timeoutMs: STEP_MS });
  } catch (thrown) {
    const cause = statusToFault(thrown);
    if (cause.code !== "unimplemented") throw cause;
    throw new Fault(
      "failed_precondition",
      "the pod VM's image is older than this node and pulls no images: build it again",
      {},
      { cause },
    );
  }
}

/** "" when the pod has none; undefined when nobody says, which must not keep a running pod from its containers. */
async function podLogins(deps: GuestRootDeps, call: Call): Promise<string | undefined> {
  try {
    return (await deps.pullSecrets(withDeadline(SECRETS_MS, call))) ?? "";
  } catch (err) {
    if (call.signal.aborted) throw ended(call, err);
    deps.log.warn({ err }, "the pod's pull secrets are not known now: its VM keeps the logins that it has");
    return undefined;
  }
}

function mib(bytes: bigint): string {
  return (Number(bytes) / 2 ** 20).toFixed(1);
}
