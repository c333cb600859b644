import { setTimeout as delay } from "node:timers/promises";
import { type Call, withDeadline } from "../../src/base/call.ts";
import type { Instance, InstanceSpec, Provider } from "../../src/provider/index.ts";
import { AzureWorld } from "../clouds/arm/index.ts";
import { AwsWorld } from "../clouds/ec2/index.ts";
import type { BenchScope } from "./bench-scope.ts";
import { type Figure, figure } from "./figure.ts";

/** What the incumbent sends for a pod, one poll where it polls, without what it sends once per process. Source: wire contract §4.5. */
const INCUMBENT = {
  aws: { create: 1, delete: 2, text: "RunInstances; DescribeAddresses, TerminateInstances" },
  azure: { create: 3, delete: 2, text: "PUT VM, a poll at least, GET interface; DELETE VM, a poll at least" },
} as const;
const BURST = 100;

/** An account at an endpoint, as the fixtures of both clouds have it. */
interface World extends AsyncDisposable {
  provider(change?: Readonly<Record<string, unknown>>): Promise<Provider>;
  spec(change?: Partial<InstanceSpec>): InstanceSpec;
  takeActions(): string[];
}

/** Cloud requests of a pod's VM, counted at the endpoints; tokens of Microsoft Entra are not the cloud's API. */
export async function cloudCallFigures(scope: BenchScope): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const [name, open] of [
    ["aws", () => AwsWorld.open()],
    ["azure", () => AzureWorld.open()],
  ] as const) {
    scope.say(`cloud-calls: ${name}`);
    await using world = await open();
    figures.push(...(await count(name, world, withDeadline(120_000, scope.call))));
  }
  return figures;
}

async function count(name: "aws" | "azure", world: World, call: Call): Promise<Figure[]> {
  const { create, delete: end, text } = INCUMBENT[name];
  const provider = await world.provider();
  const counted = (): string[] => world.takeActions().filter((action) => !/token/i.test(action));
  const first = await addressed(provider, await provider.createInstance(world.spec(), call), call);
  const start = counted().length;
  await gone(provider, first, call);
  counted();
  const one = await addressed(provider, await provider.createInstance(world.spec(), call), call);
  const created = counted();
  await gone(provider, one, call);
  const ended = counted();
  const base = (value: number) => ({ base: { value, text: `the incumbent's ${value} (${text})` } });
  const label = (what: string): string => `${name}: ${what}`;
  return [
    figure(`cloud-calls.${name}.create`, label("a pod's VM, until its address is known"), created.length, "calls", {
      ...base(create),
      note: tally(created),
    }),
    figure(`cloud-calls.${name}.delete`, label("its end"), ended.length, "calls", { ...base(end), note: tally(ended) }),
    figure(
      `cloud-calls.${name}.process`,
      label("more for the first one of a process"),
      start - created.length,
      "calls",
    ),
    ...(await countBurst(name, world, provider, call)),
  ];
}

/** As the adaptor does it: one request for many, then each is told whose it is. */
async function countBurst(name: string, world: World, provider: Provider, call: Call): Promise<Figure[]> {
  const { batches } = provider;
  if (batches === undefined) return [];
  const { sandboxId, ...wanted } = world.spec();
  const [place] = await batches.places(wanted, call);
  if (place === undefined) throw new Error(`${name} has no place for a VM`);
  world.takeActions();
  const made = await batches.createInstances({ class: wanted, count: BURST, place: place.key, admitted: false }, call);
  const assignment = { name: "podvm-burst-01234567", sandboxId, nodeId: "node-1" };
  for (const { id } of made) await batches.assign(id, assignment, call);
  const created = world.takeActions();
  await Promise.all(made.map((instance) => gone(provider, instance, call)));
  const ended = world.takeActions();
  return [
    figure(
      `cloud-calls.${name}.burstCreate`,
      `${name}: each of ${made.length} at once`,
      created.length / made.length,
      "calls",
      {
        note: tally(created),
      },
    ),
    figure(`cloud-calls.${name}.burstDelete`, `${name}: the end of each`, ended.length / made.length, "calls", {
      note: tally(ended),
    }),
  ];
}

async function addressed(provider: Provider, made: Instance, call: Call): Promise<Instance> {
  let known: Instance | undefined = made;
  while (known === undefined || known.addresses.length === 0) {
    await delay(20, undefined, { signal: call.signal });
    known = await provider.getInstance(made.id, call);
  }
  return known;
}

async function gone(provider: Provider, { id }: Instance, call: Call): Promise<void> {
  while ((await provider.deleteInstance(id, call)) !== "gone") await delay(20, undefined, { signal: call.signal });
}

function tally(actions: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const action of actions) counts.set(action, (counts.get(action) ?? 0) + 1);
  return [...counts].map(([action, n]) => (n === 1 ? action : `${n} ${action}`)).join(", ");
}
