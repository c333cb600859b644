import { Resolver } from "node:dns/promises";
import type { LookupFunction } from "node:net";
import { Fault } from "../../base/fault.ts";

/** One question, ms, and how often it is asked. */
const PATIENCE = { timeout: 3_000, tries: 3 };

/**
 * Finds addresses of names at the given servers only.
 * @throws Fault invalid_argument for a server that is no address
 */
export function lookupAt(servers: readonly string[]): LookupFunction {
  const resolver = new Resolver(PATIENCE);
  try {
    resolver.setServers(servers);
  } catch (cause) {
    throw new Fault("invalid_argument", `name servers ${servers.join(", ")} are no addresses`, {}, { cause });
  }
  return (name, options, done) => {
    addressesOf(resolver, name).then(
      (found) => {
        const [first] = found;
        if (options.all === true) done(null, [...found]);
        else done(null, first.address, first.family);
      },
      (error: NodeJS.ErrnoException) => done(error, "", 0),
    );
  };
}

type Addresses = readonly [Address, ...Address[]];
interface Address {
  readonly address: string;
  readonly family: number;
}

async function addressesOf(resolver: Resolver, name: string): Promise<Addresses> {
  const answers = await Promise.allSettled([resolver.resolve4(name), resolver.resolve6(name)]);
  const [first, ...more] = answers.flatMap((answer, i) =>
    answer.status === "fulfilled" ? answer.value.map((address) => ({ address, family: i === 0 ? 4 : 6 })) : [],
  );
  if (first !== undefined) return [first, ...more];
  throw (answers[0] as PromiseRejectedResult).reason;
}
