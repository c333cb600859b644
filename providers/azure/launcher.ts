import type { Call } from "../../src/base/call.ts";
import type { Clock } from "../../src/base/clock.ts";
import { Fault } from "../../src/base/fault.ts";
import type { InstanceId } from "../../src/base/ids.ts";
import { Cached, type Instance, type InstanceClass, type Place } from "../../src/provider/index.ts";
import type { ArmApi } from "./arm-api.ts";
import { type Candidate, candidateKey, describeCandidate, listCandidates, toPlace } from "./candidates.ts";
import type { AzureConfig } from "./config.ts";
import { Images } from "./images.ts";
import { vmName } from "./names.ts";
import type { PodVmImage } from "./pod-vm-image.ts";
import { allowedSizes, fittingSizes, toVmSize, type VmSize } from "./sizes.ts";
import { makeUnusedSshKey } from "./ssh-key.ts";
import { vmBody } from "./vm-body.ts";
import type { Volumes } from "./volumes.ts";

export interface LauncherDeps {
  readonly api: ArmApi;
  readonly config: AzureConfig;
  readonly clock: Clock;
  readonly volumes: Pick<Volumes, "place">;
}

/** What a location offers changes seldom, what a subscription may use there a little more often. */
const KEEP_MS = 6 * 3_600_000;

/** One VM to ask for. */
export interface Launch {
  readonly wanted: InstanceClass;
  /** Key of a place. */
  readonly place: string;
  /** In its batch. */
  readonly index: number;
  readonly admitted: boolean;
}

/** Knows where a VM could be had, and asks at the one place that it is told. What comes next is the adaptor's decision. */
export class Launcher {
  readonly images: Images;
  readonly #deps: LauncherDeps;
  readonly #sizes: Cached<"all", readonly VmSize[]>;
  #sshKey: Promise<string> | undefined;

  constructor(deps: LauncherDeps) {
    const { api, clock } = deps;
    this.#deps = deps;
    this.images = new Images(deps);
    const load = async (_: "all", call: Call): Promise<readonly VmSize[]> => (await api.listSizes(call)).map(toVmSize);
    this.#sizes = new Cached({ load, keepMs: KEEP_MS, clock });
  }

  /** All that the location has. */
  sizes(call: Call): Promise<readonly VmSize[]> {
    return this.#sizes.get("all", call);
  }

  /** Where a VM like this could be had: sizes that are large enough, smallest first, in every zone and subnet. */
  async places(wanted: InstanceClass, call: Call): Promise<readonly Place[]> {
    return (await this.#offer(wanted, call)).candidates.map(toPlace);
  }

  /**
   * Asks for one VM. Resolves when Azure has accepted it, as it will be shown.
   * @throws Fault of faults.ts; of kind `exists` when it has been asked for before
   */
  async launch({ wanted, place, index, admitted }: Launch, call: Call): Promise<Instance> {
    const { api, config, clock } = this.#deps;
    const { image, candidates } = await this.#offer(wanted, call, index);
    const candidate = candidates.find((c) => candidateKey(c) === place);
    if (candidate === undefined) {
      const message = `${place} is no place that the configuration has for such a VM any more`;
      throw new Fault("failed_precondition", message, { provider: "azure", kind: "setup" });
    }
    const name = vmName(wanted.name, wanted.tags, index);
    const sshPublicKey = (): Promise<string> => this.#unusedKey();
    const body = await vmBody({ name, wanted, candidate, image, config, sshPublicKey });
    try {
      await api.createVm(name, body, call, admitted);
    } catch (e) {
      throw withPlace(e, candidate);
    }
    const { tags } = wanted;
    return { id: name, name: wanted.name, tags, state: "pending", addresses: [], createdAt: clock.now() };
  }

  idOf(wanted: InstanceClass, index: number): InstanceId {
    return vmName(wanted.name, wanted.tags, index);
  }

  async #offer(
    wanted: InstanceClass,
    call: Call,
    index = 0,
  ): Promise<{ readonly image: PodVmImage; readonly candidates: readonly Candidate[] }> {
    const { config } = this.#deps;
    const [image, sizes] = await Promise.all([this.images.resolve(wanted.image, call), this.sizes(call)]);
    const fitting = fittingSizes(allowedSizes(sizes, config), wanted, config);
    const candidates = await this.#near(wanted, listCandidates(fitting, config), index, call);
    if (candidates.length > 0) return { image, candidates };
    const names = fitting.map((s) => `${s.name} (zones ${s.zones.join(", ") || "none"})`).join(", ");
    const message = `none of the sizes that fit is offered in providers.azure.zones ${config.zones.join(", ")}: ${names}`;
    throw new Fault("failed_precondition", message, { provider: "azure", kind: "setup" });
  }

  /** Where its volumes are. A VM without a zone is put into theirs. */
  async #near(
    wanted: InstanceClass,
    candidates: readonly Candidate[],
    index: number,
    call: Call,
  ): Promise<readonly Candidate[]> {
    const { volumes = [] } = wanted;
    if (volumes.length === 0) return candidates;
    const { zone } = await this.#deps.volumes.place(volumes, this.idOf(wanted, index), call);
    if (zone === "any") return candidates;
    const free = zone !== undefined && this.#deps.config.zones.length === 0;
    const near = free
      ? candidates.filter((c) => c.size.zones.includes(zone)).map((c) => ({ ...c, zone }))
      : candidates.filter((c) => c.zone === zone);
    if (near.length > 0 || candidates.length === 0) return near;
    const message = `the pod's disks are in ${zone === undefined ? "no zone" : `zone ${zone}`}, where none of the sizes that fit is configured: see providers.azure.zones`;
    throw new Fault("failed_precondition", message, { provider: "azure", kind: "setup" });
  }

  #unusedKey(): Promise<string> {
    this.#sshKey ??= makeUnusedSshKey();
    return this.#sshKey;
  }
}

/** Says which of the places it was. */
function withPlace(thrown: unknown, candidate: Candidate): unknown {
  if (!(thrown instanceof Fault) || thrown.code !== "resource_exhausted") return thrown;
  const { code, message, context, cause, retryable } = thrown;
  return new Fault(code, `${describeCandidate(candidate)}: ${message}`, context, { cause, retryable });
}
