import { join } from "node:path";
import { AgentServiceDefinition } from "../../src/gen/agent/agent.ts";
import { Forwarder, GuestIdentity, TreeStore } from "../../src/guest/forwarder/index.ts";
import { Children } from "../../src/guest/system/children.ts";
import type { ServiceDefinition, ServiceImplementation } from "../../src/ttrpc/index.ts";

const quiet = { info: () => undefined, warn: () => undefined, error: () => undefined };

/** The guest's real forwarder in front of an agent that says yes to everything. */
export function stubForwarder(caPem: string, folder: string): Forwarder {
  const treeDirectory = (treeId: string): string => join(folder, encodeURIComponent(treeId).slice(0, 100));
  return new Forwarder({
    identity: new GuestIdentity(caPem),
    agent: emptyAnswers(AgentServiceDefinition),
    trees: new TreeStore({ children: new Children(), directory: treeDirectory, diskText: () => "" }),
    treeDirectory,
    machine: {
      setClock: () => undefined,
      setHostname: () => undefined,
      listeningMs: () => 0,
      setPodNetwork: async () => undefined,
    },
    diskPath: folder,
    log: quiet,
  });
}

/** Answers every method of a service with its empty message. */
function emptyAnswers<D extends ServiceDefinition>(definition: D): ServiceImplementation<D> {
  const answers = Object.entries(definition.methods).map(([key, { responseType }]) => [
    key,
    async () => responseType.decode(new Uint8Array()),
  ]);
  return Object.fromEntries(answers) as ServiceImplementation<D>;
}
