import { statfsSync } from "node:fs";
import { type Call, withDeadline } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { ended } from "../../base/retry.ts";
import type { ImageSettings } from "../../guestwire/index.ts";
import type { GuestLog } from "../system/guest-log.ts";
import { blobBytes } from "./blob-stream.ts";
import { DEFAULT_STALL_MS, HttpClient } from "./http-client.ts";
import { settleImplicitDirectories } from "./implicit-directories.ts";
import type { LayerSource, LayerStore, StoredLayer } from "./layer-store.ts";
import type { Descriptor } from "./manifest.ts";
import type { PullProgress } from "./pull-progress.ts";
import type { ImageReference } from "./reference.ts";
import { type Registry, registriesOf } from "./registry.ts";
import { type ResolvedImage, resolveImage } from "./resolve-image.ts";

export interface PulledImage {
  /** Of what the reference names: index or manifest. */
  readonly digest: string;
  /** Lowest first, each with a user counted for this image. */
  readonly layers: readonly StoredLayer[];
}

export interface PullerDeps {
  readonly store: LayerStore;
  /** A path on the disk that takes the layers. */
  readonly disk: string;
  readonly log: GuestLog;
}

export const DEFAULT_PULL_MS = 20 * 60_000;
const DEFAULT_ATTEMPTS = 5;

/**
 * Pulls one image: manifest, config, the layers that are not here yet. After a failure nothing that is not complete is
 * left; complete layers are, for the next try.
 * @throws Fault whose message names image, registry and reason
 */
export async function pullImage(
  deps: PullerDeps,
  reference: ImageReference,
  settings: ImageSettings,
  progress: PullProgress,
  call: Call,
): Promise<PulledImage> {
  const bounded = withDeadline(settings.pullTimeoutMs ?? DEFAULT_PULL_MS, call);
  using http = new HttpClient(settings);
  try {
    const registries = registriesOf(reference, settings, http);
    const image = await resolveImage({ reference, registries, settings, log: deps.log }, bounded);
    const layers = await fetchLayers(deps, { reference, registries, settings, image, progress }, bounded);
    settleImplicitDirectories(layers);
    return { digest: image.digest, layers };
  } catch (thrown) {
    const cause = named(thrown, deps, bounded, progress);
    throw new Fault(cause.code, `image ${reference.text} was not pulled into the pod VM`, cause.context, {
      cause,
      retryable: cause.retryable,
    });
  }
}

interface Work {
  readonly reference: ImageReference;
  readonly registries: readonly Registry[];
  readonly settings: ImageSettings;
  readonly image: ResolvedImage;
  readonly progress: PullProgress;
}

async function fetchLayers(deps: PullerDeps, work: Work, call: Call): Promise<readonly StoredLayer[]> {
  const { image, progress } = work;
  const pairs = image.layers.map((blob, i) => ({ blob, diffId: image.diffIds[i] as string }));
  const missing = pairs.filter(({ diffId }) => !deps.store.has(diffId)).map(({ blob }) => blob);
  progress.begin(missing);
  await checkSpace(deps, missing);
  const stop = new AbortController();
  const scope: Call = { ...call, signal: AbortSignal.any([call.signal, stop.signal]) };
  let first: { readonly error: unknown } | undefined;
  const results = await Promise.all(
    pairs.map(async ({ blob, diffId }) => {
      try {
        return await deps.store.acquire(sourceOf(deps, work, blob, diffId), scope);
      } catch (error) {
        first ??= { error };
        stop.abort(); // the others are not needed any more
        return undefined;
      }
    }),
  );
  const layers = results.filter((layer) => layer !== undefined);
  if (first === undefined) return layers;
  for (const layer of layers) deps.store.release(layer);
  throw first.error;
}

function sourceOf(deps: PullerDeps, work: Work, blob: Descriptor, diffId: string): LayerSource {
  const { reference, registries, settings, progress } = work;
  const what = `layer ${blob.digest} of ${reference.text}`;
  return {
    diffId,
    what,
    attempts: registries.map((registry) => (call: Call) => {
      const onBytes = progress.layer(blob);
      const stallMs = settings.stallMs ?? DEFAULT_STALL_MS;
      const attempts = settings.attempts ?? DEFAULT_ATTEMPTS;
      return blobBytes({ registry, blob, what, stallMs, attempts, onBytes }, call);
    }),
    onFailure: (error) =>
      deps.log.warn("a mirror failed, the next place is asked", {
        layer: blob.digest,
        err: Fault.from(error).fullMessage,
      }),
  };
}

/**
 * What is compressed takes at least its own size. When there is less, layers that nobody uses go first.
 * @throws Fault resource_exhausted with both figures
 */
async function checkSpace(deps: PullerDeps, missing: readonly Descriptor[]): Promise<void> {
  const needed = missing.reduce((sum, { size }) => sum + size, 0);
  if (needed <= freeBytes(deps.disk)) return;
  const freed = await deps.store.removeUnused();
  if (freed > 0) deps.log.info("layers that nobody uses were removed", { bytes: freed });
  const free = freeBytes(deps.disk);
  if (needed > free)
    throw new Fault(
      "resource_exhausted",
      `the image needs more than ${mib(needed)} MiB, the pod VM's disk has ${mib(free)} MiB free: use a larger disk for pod VMs`,
    );
}

function named(thrown: unknown, deps: PullerDeps, call: Call, progress: PullProgress): Fault {
  if ((thrown as NodeJS.ErrnoException).code === "ENOSPC") {
    const free = mib(freeBytes(deps.disk));
    return new Fault(
      "resource_exhausted",
      `the pod VM's disk is full: ${progress.text}, ${free} MiB were free when it stopped; use a larger disk for pod VMs`,
      {},
      { cause: thrown },
    );
  }
  if (!call.signal.aborted) return Fault.from(thrown);
  const fault = ended(call, thrown);
  if (fault.code !== "deadline_exceeded") return fault;
  return new Fault("deadline_exceeded", `the time for it is over: ${progress.text}`, {}, { cause: fault });
}

function freeBytes(path: string): number {
  const { bsize, bavail } = statfsSync(path);
  return bsize * bavail;
}

function mib(bytes: number): number {
  return Math.ceil(bytes / 2 ** 20);
}
