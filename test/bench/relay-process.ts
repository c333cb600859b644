import { join } from "node:path";
import { withDeadline } from "../../src/base/call.ts";
import { silentLogger } from "../../src/base/log.ts";
import { RELAY_NODE_FLAGS } from "../../src/cmd/relay-command.ts";
import { startRelay } from "../../src/node/index.ts";
import type { BenchScope } from "./bench-scope.ts";
import type { Figure } from "./figure.ts";
import { callFigures, copyFigure } from "./tunnel.ts";
import { TunnelWorld } from "./tunnel-world.ts";

const SETTINGS = { keepAliveMs: 60_000, keepAliveDeadlineMs: 1_000, orphanAfterMs: 10_000, logLevel: "error" };

/**
 * The same as the tunnel's figures with the relay in a process of its own, as every daemon but `kata-remote up` has it:
 * calls have one more hop, a container's output has not.
 */
export async function relayFigures(scope: BenchScope): Promise<Figure[]> {
  const bare = await scope.ttrpc();
  const bundle = join(await scope.bin(), "..", "lib", "kata-remote", "relay.mjs");
  scope.say("agent calls through the relay process and forwarder");
  await using world = await TunnelWorld.open(scope, "r");
  const options = { runDir: world.folder, log: silentLogger(), settings: SETTINGS, env: process.env };
  const command = (dir: string): string[] => [process.execPath, ...RELAY_NODE_FLAGS, bundle, dir];
  await using relay = await startRelay({ ...options, command }, scope.call);
  await relay.onTaskRequest(async () => ({ ok: false, code: 12, message: "no containerd calls here" }));
  await relay.connectGuest(world.spec, withDeadline(20_000, scope.call));
  const caller = relay.guest(world.fixture.sandboxId);
  return [
    ...(await callFigures(caller, { name: "relay", text: "through relay process and tunnel", bare })),
    await copyFigure(relay, world, { name: "relay", text: "stdout by the relay process", bare }),
  ];
}
