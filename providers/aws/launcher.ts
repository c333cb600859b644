import type { Instance as Ec2Instance } from "@aws-sdk/client-ec2";
import type { Call } from "../../src/base/call.ts";
import { Fault } from "../../src/base/fault.ts";
import type { Logger } from "../../src/base/log.ts";
import type { InstanceBatch, InstanceClass, InstanceSpec, Place as OfferedPlace } from "../../src/provider/index.ts";
import { Cached } from "./cached.ts";
import {
  type Candidate,
  candidateKey,
  describeCandidate,
  isShortage,
  listCandidates,
  type Place,
  type Shortage,
  Shortages,
  scopeOf,
} from "./candidates.ts";
import type { AwsConfig } from "./config.ts";
import type { Ec2Api } from "./ec2-api.ts";
import { kindOf } from "./faults.ts";
import { Images } from "./images.ts";
import { allowedTypes, fittingTypes, type TypeSize, toTypeSize } from "./instance-types.ts";
import { launchInput } from "./launch-input.ts";
import { outOfCapacity, quotaText, type Refusal } from "./out-of-capacity.ts";

export interface LauncherDeps {
  readonly api: Ec2Api;
  readonly config: AwsConfig;
  readonly log: Logger;
  readonly now: () => Date;
}

/** Types and subnets do not change while the region stays the same. */
const KEEP_MS = 24 * 3_600_000;

/**
 * Gets a VM launched at the first of its candidates that EC2 has room for. The next candidate's token is only used after
 * EC2 has refused the one before, which then cannot have made an instance.
 */
export class Launcher {
  readonly images: Images;
  readonly #deps: LauncherDeps;
  readonly #types: Cached<readonly TypeSize[]>;
  readonly #places: Cached<readonly Place[]>;
  readonly #shortages: Shortages;

  constructor(deps: LauncherDeps) {
    const { api, config, now } = deps;
    this.#deps = deps;
    this.images = new Images(deps);
    this.#shortages = new Shortages(deps);
    const types = async (call: Call): Promise<readonly TypeSize[]> =>
      (await api.describeInstanceTypes(allowedTypes(config), call)).map(toTypeSize);
    this.#types = new Cached({ load: types, keepMs: KEEP_MS, now });
    this.#places = new Cached({ load: (call) => readPlaces(api, config, call), keepMs: KEEP_MS, now });
  }

  /** Types that the configuration allows and the region has. */
  types(call: Call): Promise<readonly TypeSize[]> {
    return this.#types.get(call);
  }

  /**
   * @param options.resume the candidate where an earlier attempt ended without an answer: it is asked first, with the
   *   token it had
   * @param options.onTry called before each request with the candidate's key
   * @throws Fault resource_exhausted with what was tried, or what EC2 said
   */
  async launch(
    spec: InstanceSpec,
    options: { readonly resume: string | undefined; readonly onTry: (key: string) => void },
    call: Call,
  ): Promise<Ec2Instance> {
    const { config, api } = this.#deps;
    const { image, types: fitting, candidates: all } = await this.#offer(spec, call);
    const refusals: Refusal[] = [];
    const refused = new Set<string>();
    for (const candidate of inOrder(this.#shortages.order(all), options.resume)) {
      if (refusals.length >= config.maxCandidates) break;
      if (SCOPES.some((kind) => refused.has(scopeOf(kind, candidate)))) continue;
      options.onTry(candidateKey(candidate));
      try {
        const input = launchInput(spec, candidate, image, config);
        return firstInstance((await api.runInstances(input, call)).Instances, spec);
      } catch (e) {
        const kind = kindOf(e);
        if (!(e instanceof Fault) || !isShortage(kind)) throw e;
        this.#noteRefusal(spec, candidate, kind, e);
        refused.add(scopeOf(kind, candidate));
        refusals.push({ candidate, kind, fault: e });
      }
    }
    throw outOfCapacity(refusals, fitting, config.region);
  }

  /** Where a VM like this could be had: types that are large enough, smallest first, in every subnet. */
  async places(wanted: InstanceClass, call: Call): Promise<readonly OfferedPlace[]> {
    return (await this.#offer(wanted, call)).candidates.map(toPlace);
  }

  /** One request for a batch, at the place that it names. @throws Fault of faults.ts; a quota's has the numbers */
  async launchBatch(
    { class: wanted, count, place, admitted }: InstanceBatch,
    call: Call,
  ): Promise<readonly Ec2Instance[]> {
    const { config, api } = this.#deps;
    const { image, candidates, types } = await this.#offer(wanted, call);
    const candidate = candidates.find((c) => candidateKey(c) === place);
    if (candidate === undefined) {
      const message = `${place} is no place that the configuration has for such a VM any more`;
      throw new Fault("failed_precondition", message, { provider: "aws", kind: "setup" });
    }
    try {
      const made = await api.runInstances(launchInput(wanted, candidate, image, config, count), call, admitted);
      if ((made.Instances ?? []).length > 0) return made.Instances ?? [];
    } catch (e) {
      if (kindOf(e) !== "quota" || !(e instanceof Fault)) throw e;
      const text = quotaText({ candidate, kind: "quota", fault: e }, types, config.region);
      throw new Fault(e.code, text, e.context, { cause: e.cause });
    }
    const message = "EC2 accepted the launch but named no instance: the same request gives it again";
    throw new Fault("unavailable", message, { provider: "aws", kind: "transient" });
  }

  async #offer(wanted: InstanceClass, call: Call) {
    const { config } = this.#deps;
    const [image, types, places] = await Promise.all([
      this.images.resolve(wanted.image, call),
      this.#types.get(call),
      this.#places.get(call),
    ]);
    const fitting = fittingTypes(types, wanted, config);
    const names = fitting.map((t) => t.name);
    return { image, types: fitting, candidates: listCandidates(names, places, config.market) };
  }

  /** Also for what is learned later: an instance may end for want of capacity after it was accepted. */
  noteShortage(kind: Shortage, candidate: Candidate): void {
    this.#shortages.note(kind, candidate);
  }

  #noteRefusal(spec: InstanceSpec, candidate: Candidate, kind: Shortage, fault: Fault): void {
    this.#shortages.note(kind, candidate);
    this.#deps.log.warn(
      { sandbox: spec.sandboxId, candidate: describeCandidate(candidate), kind, reason: fault.fullMessage },
      "EC2 has no room for the VM there, the next place is tried",
    );
  }
}

const SCOPES: readonly Shortage[] = ["capacity", "not-offered", "quota", "subnet-full"];

function toPlace(candidate: Candidate): OfferedPlace {
  const scopes = Object.fromEntries(SCOPES.map((kind) => [kind, scopeOf(kind, candidate)]));
  return {
    ...{ key: candidateKey(candidate), text: describeCandidate(candidate) },
    scopes: scopes as Readonly<Record<Shortage, string>>,
  };
}

function inOrder(candidates: readonly Candidate[], resume: string | undefined): readonly Candidate[] {
  const first = candidates.find((c) => candidateKey(c) === resume);
  return first === undefined ? candidates : [first, ...candidates.filter((c) => c !== first)];
}

async function readPlaces(api: Ec2Api, config: AwsConfig, call: Call): Promise<readonly Place[]> {
  if (config.subnets.length === 0) return [];
  const found = await api.describeSubnets(config.subnets, call);
  // In the configured order, which is the order of preference.
  return config.subnets.map((id) => {
    const zone = found.find((s) => s.SubnetId === id)?.AvailabilityZone;
    return { subnetId: id, zone: zone ?? id };
  });
}

function firstInstance(instances: readonly Ec2Instance[] | undefined, spec: InstanceSpec): Ec2Instance {
  const [instance] = instances ?? [];
  if (instance !== undefined) return instance;
  const message = "EC2 accepted the launch but named no instance: the same request gives it again";
  throw new Fault("unavailable", message, { provider: "aws", sandboxId: spec.sandboxId });
}
