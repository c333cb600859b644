// One pod VM of the chaos suite: the guest's own forwarder in front of an agent in memory, in a process of its own that
// is killed as a VM is. It is started ahead of time and becomes a guest when it is told its user-data and address.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AgentServiceDefinition } from "../../src/gen/agent/agent.ts";
import { type ForwarderDeps, GuestIdentity } from "../../src/guest/forwarder/index.ts";
import { CONSOLE_KEY_PREFIX, GUEST_PORT } from "../../src/guestwire/index.ts";
import type { Codec, ServerCall } from "../../src/ttrpc/index.ts";
import { parseUserData } from "../../src/userdata/index.ts";
import { FakeAgent } from "../fakes/agent.ts";
import { realForwarder } from "../support/real-forwarder.ts";
import type { FromGuest, ToGuest } from "./guest-messages.ts";

const waiting = new Map<number, () => void>();
let question = 0;

function tell(message: FromGuest): void {
  process.send?.(message);
}

/** Says that a step is reached and waits until whoever watches has done what it wants to do at it. */
function reach(step: string): Promise<void> {
  const id = ++question;
  tell({ kind: "step", step, id });
  return new Promise((resolve) => waiting.set(id, resolve));
}

/** The agent in memory as the forwarder wants it; each method is a step that is told first. */
function agentService(fake: FakeAgent): ForwarderDeps["agent"] {
  const service = AgentServiceDefinition.fullName;
  const methods = Object.entries(AgentServiceDefinition.methods).map(([key, method]) => {
    const handler = async (request: unknown, call: ServerCall): Promise<unknown> => {
      await reach(key);
      const payload = (method.requestType as Codec<unknown>).encode(request).finish();
      const reply = await fake.call(service, method.name, payload, { signal: call.signal });
      return (method.responseType as Codec<unknown>).decode(reply);
    };
    return [key, handler] as const;
  });
  return Object.fromEntries(methods) as ForwarderDeps["agent"];
}

/** Its processes say nothing: their output ends when they do. */
function silentAgent(): FakeAgent {
  const fake = new FakeAgent();
  const output = async ({
    containerId,
    execId,
  }: {
    containerId: string;
    execId: string;
  }): Promise<{ data: Buffer }> => {
    await fake.ended(containerId, execId === "" ? containerId : execId);
    return { data: Buffer.alloc(0) };
  };
  fake.on.readStdout = output;
  fake.on.readStderr = output;
  fake.on.writeStdin = async ({ data }) => ({ len: data.length });
  fake.on.closeStdin = async () => ({});
  return fake;
}

async function boot({ userData, address }: Extract<ToGuest, { kind: "boot" }>): Promise<void> {
  const { caPem } = await parseUserData(Buffer.from(userData, "base64").toString());
  const identity = new GuestIdentity(caPem);
  tell({ kind: "console", text: `${CONSOLE_KEY_PREFIX}${identity.fingerprint}\n` });
  const folder = mkdtempSync(join(tmpdir(), "chaos-guest-"));
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  const forwarder = realForwarder({ identity, agent: agentService(silentAgent()), folder });
  const install = identity.install.bind(identity);
  identity.install = (certificatePem) => {
    install(certificatePem);
    tell({ kind: "configured", certificatePem });
  };
  await forwarder.listen(GUEST_PORT, address);
  tell({ kind: "listening" });
}

process.on("disconnect", () => process.exit(0));
process.on("message", (message: ToGuest) => {
  if (message.kind === "go") {
    waiting.get(message.id)?.();
    waiting.delete(message.id);
    return;
  }
  boot(message).catch((e: unknown) => {
    process.stderr.write(`chaos guest cannot boot: ${e instanceof Error ? e.stack : String(e)}\n`);
    process.exit(1);
  });
});
tell({ kind: "spare" });
