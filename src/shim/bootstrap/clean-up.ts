import { join } from "node:path";
import { type Call, withDeadline } from "../../base/call.ts";
import { dialUnix } from "../../base/dial-unix.ts";
import type { Logger } from "../../base/log.ts";
import { ControlDefinition } from "../../gen/kataremote/node/v1/control.ts";
import type { PodNetwork } from "../../podnetwork/index.ts";
import { createClient, TtrpcClient } from "../../ttrpc/index.ts";
import type { Hypervisor } from "../hypervisor/index.ts";
import { SandboxStateStore, stopVm } from "../sandbox/index.ts";
import type { CleanupResult } from "../shim-service.ts";
import { TaskRecords } from "../task/index.ts";
import type { DeleteFlags } from "./delete-flags.ts";

export interface CleanUpDeps {
  readonly runDir: string;
  readonly log: Logger;
  /** Opens the backends and the pod network; only asked when there is a VM to stop and no daemon. */
  readonly openBackends: (call: Call) => Promise<Backends>;
}

export interface Backends {
  readonly hypervisors: ReadonlyMap<string, Hypervisor>;
  readonly podNetwork?: Pick<PodNetwork, "detach"> | undefined;
}

/** containerd gives the whole clean-up 5 s, the boot of Node included. Source: io.containerd.timeout.shim.cleanup. */
const DAEMON_MS = 3_800;
const OWN_MS = 3_500;
const KILLED = 128 + 9;

/**
 * Cleans up one container for containerd: by the living daemon, else, from what the dead one wrote down, here. What
 * cannot be stopped in time keeps its state file: the next daemon stops it.
 */
export async function cleanUp(deps: CleanUpDeps, flags: DeleteFlags, call: Call): Promise<CleanupResult> {
  const answer = await askDaemon(deps, flags, withDeadline(DAEMON_MS, call));
  if (answer !== undefined) return answer;
  const store = new SandboxStateStore(deps.runDir);
  const { states, unreadable } = await store.read(flags.address, flags.namespace, flags.id);
  for (const path of unreadable)
    deps.log.error({ path }, "state file is not readable; its VM, if any, must be removed by hand");
  if (states.length > 0) {
    const bounded = withDeadline(OWN_MS, call);
    const { hypervisors, podNetwork } = await deps.openBackends(bounded);
    try {
      for (const state of states) {
        await stopVm({ hypervisors, podNetwork, states: store }, state, "its node daemon ended", bounded).catch(
          (err: unknown) =>
            deps.log.error({ err, sandbox: state.sandboxId }, "pod VM not stopped, the next node daemon will do it"),
        );
      }
    } finally {
      await Promise.all([...hypervisors.values()].map((h) => h.close()));
    }
  }
  await new TaskRecords(deps).remove(flags);
  return { pid: 0, exitStatus: KILLED, exitedAt: new Date() };
}

/** undefined: there is no daemon, or it does not answer. */
async function askDaemon(deps: CleanUpDeps, flags: DeleteFlags, call: Call): Promise<CleanupResult | undefined> {
  let client: TtrpcClient | undefined;
  try {
    client = new TtrpcClient(await dialUnix(join(deps.runDir, "control.sock"), call));
    const control = createClient(ControlDefinition, client);
    const request = { containerdAddress: flags.address, namespace: flags.namespace, id: flags.id };
    const { pid, exitStatus, exitedAtUnixNano } = await control.cleanup(request, {
      signal: call.signal,
      timeoutMs: DAEMON_MS,
    });
    return { pid, exitStatus, exitedAt: new Date(Number(exitedAtUnixNano / 1_000_000n)) };
  } catch (err) {
    deps.log.info({ err }, "the node daemon does not answer, cleaning up without it");
    return undefined;
  } finally {
    client?.close();
  }
}
