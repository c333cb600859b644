import { AgentServiceDefinition } from "../../src/gen/agent/agent.ts";
import { type Forwarder, GuestIdentity } from "../../src/guest/forwarder/index.ts";
import type { ServiceDefinition, ServiceImplementation } from "../../src/ttrpc/index.ts";
import { realForwarder } from "../support/real-forwarder.ts";

/** The guest's real forwarder in front of an agent that says yes to everything. */
export function stubForwarder(caPem: string, folder: string): Forwarder {
  return realForwarder({ identity: new GuestIdentity(caPem), agent: emptyAnswers(AgentServiceDefinition), folder });
}

/** Answers every method of a service with its empty message. */
function emptyAnswers<D extends ServiceDefinition>(definition: D): ServiceImplementation<D> {
  const answers = Object.entries(definition.methods).map(([key, { responseType }]) => [
    key,
    async () => responseType.decode(new Uint8Array()),
  ]);
  return Object.fromEntries(answers) as ServiceImplementation<D>;
}
