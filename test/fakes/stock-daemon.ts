// A node daemon's part for stock shims beside a real relay process, as a process that can be killed. Run with JSON as its
// only argument; says "serving" when it takes calls.
import { join } from "node:path";
import { background } from "../../src/base/call.ts";
import { parseConfig } from "../../src/base/config.ts";
import { silentLogger } from "../../src/base/log.ts";
import { StockConfig, StockDoor } from "../../src/node/door/index.ts";
import type { PodNetns } from "../../src/podnetwork/index.ts";
import { RelayClient } from "../../src/relay/index.ts";
import { openRemote } from "../../src/shim/hypervisor/index.ts";
import { FakePodNetwork } from "./pod-network.ts";

export interface StockDaemonOptions {
  readonly dir: string;
  readonly relayDir: string;
  readonly stock: object;
  /** What its pods' namespaces have. */
  readonly netns: PodNetns;
}

const { dir, relayDir, stock, netns } = JSON.parse(process.argv[2] ?? "") as StockDaemonOptions;

class PodNetworkOfThese extends FakePodNetwork {
  override async inspect(netnsPath: string): Promise<PodNetns> {
    await super.inspect(netnsPath);
    return netns;
  }
}

const log = silentLogger();
const call = background();
const hypervisor = await openRemote({
  ...{ address: `unix://${join(dir, "adaptor.sock")}`, nodeId: "node-1", bootId: "boot-1", patienceMs: 5000 },
  ...{ stateDir: join(dir, "node"), runDir: join(dir, "run"), log },
});
const relay = await RelayClient.connect(relayDir, { log }, call);
const door = await StockDoor.recover(
  parseConfig(StockConfig, stock, "test"),
  {
    ...{ hypervisors: new Map([["remote", hypervisor]]), relay, podNetwork: new PodNetworkOfThese() },
    ...{ runDir: join(dir, "run"), guestLostAfterMs: 5000, lookMs: 50, log },
  },
  call,
);
await relay.onTaskRequest(() => new Promise(() => undefined));
await hypervisor.sync(door.liveSandboxes(), call);
void hypervisor.watch((loss) => door.onVmLoss(loss), call);
await door.open();
process.stdout.write("serving\n");
