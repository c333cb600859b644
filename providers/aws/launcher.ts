import type { Instance as Ec2Instance } from "@aws-sdk/client-ec2";
import type { Call } from "../../src/base/call.ts";
import { Fault } from "../../src/base/fault.ts";
import {
  Cached,
  type InstanceBatch,
  type InstanceClass,
  type Place as OfferedPlace,
  type Shortage,
} from "../../src/provider/index.ts";
import { type Candidate, candidateKey, describeCandidate, listCandidates, type Place, scopeOf } from "./candidates.ts";
import type { AwsConfig } from "./config.ts";
import type { Ec2Api } from "./ec2-api.ts";
import { kindOf } from "./faults.ts";
import { Images } from "./images.ts";
import { allowedTypes, fittingTypes, type TypeSize, toTypeSize } from "./instance-types.ts";
import { launchInput } from "./launch-input.ts";
import { quotaText } from "./quota-text.ts";
import type { Volumes } from "./volumes.ts";

export interface LauncherDeps {
  readonly api: Ec2Api;
  readonly config: AwsConfig;
  readonly now: () => Date;
  readonly volumes: Pick<Volumes, "zone">;
}

/** Types and subnets do not change while the region stays the same. */
const KEEP_MS = 24 * 3_600_000;

/** Knows where a VM could be had, and launches at the one place that it is told. What comes next is the adaptor's decision. */
export class Launcher {
  readonly images: Images;
  readonly #deps: LauncherDeps;
  readonly #types: Cached<"all", readonly TypeSize[]>;
  readonly #places: Cached<"all", readonly Place[]>;
  readonly #volumes: Pick<Volumes, "zone">;

  constructor(deps: LauncherDeps) {
    const { api, config, now } = deps;
    this.#deps = deps;
    this.#volumes = deps.volumes;
    this.images = new Images(deps);
    const types = async (_: "all", call: Call): Promise<readonly TypeSize[]> =>
      (await api.describeInstanceTypes(allowedTypes(config), call)).map(toTypeSize);
    const kept = { keepMs: KEEP_MS, clock: { now } };
    this.#types = new Cached({ load: types, ...kept });
    this.#places = new Cached({ load: (_: "all", call) => readPlaces(api, config, call), ...kept });
  }

  /** Types that the configuration allows and the region has. */
  types(call: Call): Promise<readonly TypeSize[]> {
    return this.#types.get("all", call);
  }

  /** Where a VM like this could be had: types that are large enough, smallest first, in every subnet. */
  async places(wanted: InstanceClass, call: Call): Promise<readonly OfferedPlace[]> {
    return (await this.#offer(wanted, call)).candidates.map(toPlace);
  }

  /** One request for a batch, at the place that it names. @throws Fault of faults.ts; a quota's has the numbers */
  async launchBatch(
    { class: wanted, count, place, admitted }: InstanceBatch,
    call: Call,
  ): Promise<readonly [Ec2Instance, ...Ec2Instance[]]> {
    const { config, api } = this.#deps;
    const { image, candidates, types } = await this.#offer(wanted, call);
    const candidate = candidates.find((c) => candidateKey(c) === place);
    if (candidate === undefined) {
      const message = `${place} is no place that the configuration has for such a VM any more`;
      throw new Fault("failed_precondition", message, { provider: "aws", kind: "setup" });
    }
    try {
      const made = await api.runInstances(launchInput(wanted, candidate, image, config, count), call, admitted);
      const [first, ...others] = made.Instances ?? [];
      if (first !== undefined) return [first, ...others];
    } catch (e) {
      if (kindOf(e) !== "quota" || !(e instanceof Fault)) throw e;
      const text = quotaText({ candidate, fault: e }, types, config.region);
      throw new Fault(e.code, text, e.context, { cause: e.cause });
    }
    const message = "EC2 accepted the launch but named no instance: the same request gives it again";
    throw new Fault("unavailable", message, { provider: "aws", kind: "transient" });
  }

  async #offer(wanted: InstanceClass, call: Call) {
    const { config } = this.#deps;
    const [image, types, places] = await Promise.all([
      this.images.resolve(wanted.image, call),
      this.#types.get("all", call),
      this.#places.get("all", call),
    ]);
    const fitting = fittingTypes(types, wanted, config);
    const names = fitting.map((t) => t.name);
    const near = await this.#placesOf(wanted, places, call);
    return { image, types: fitting, candidates: listCandidates(names, near, config.market) };
  }

  /** Where its volumes are. */
  async #placesOf({ volumes = [] }: InstanceClass, places: readonly Place[], call: Call): Promise<readonly Place[]> {
    if (volumes.length === 0) return places;
    const zone = await this.#volumes.zone(volumes, call);
    const near = places.filter((p) => p.zone === zone);
    if (near.length > 0) return near;
    const message = `volumes ${volumes.join(", ")} are in ${zone}, where none of providers.aws.subnets is: add one of that zone`;
    throw new Fault("failed_precondition", message, { provider: "aws", kind: "setup" });
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

async function readPlaces(api: Ec2Api, config: AwsConfig, call: Call): Promise<readonly Place[]> {
  const { subnets, externalSubnets } = config;
  if (subnets.length === 0) return [];
  const found = await api.describeSubnets([...new Set([...subnets, ...externalSubnets])], call);
  const zoneOf = (id: string): string => found.find((s) => s.SubnetId === id)?.AvailabilityZone ?? id;
  // In the configured order, which is the order of preference.
  const places = subnets.map((subnetId) => {
    const zone = zoneOf(subnetId);
    return { subnetId, zone, externalSubnetId: externalSubnets.find((id) => zoneOf(id) === zone) };
  });
  // Both interfaces of an instance are in one zone.
  const usable = externalSubnets.length === 0 ? places : places.filter((p) => p.externalSubnetId !== undefined);
  if (usable.length > 0) return usable;
  const message = `no zone has one of providers.aws.subnets and one of externalSubnets (${places.map((p) => p.zone).join(", ")} against ${externalSubnets.map(zoneOf).join(", ")}): name subnets of the same zones`;
  throw new Fault("failed_precondition", message, { provider: "aws", kind: "setup" });
}
