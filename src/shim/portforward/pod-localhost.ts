import { type Call, withDeadline } from "../../base/call.ts";
import { sleep } from "../../base/retry.ts";
import { type GuestConnectionDeps, joinToGuest } from "./guest-connection.ts";
import { LocalhostDoor } from "./localhost-door.ts";

export interface PodLocalhostDeps extends GuestConnectionDeps {
  /** The pod's namespace on this node, as this process reaches it. */
  readonly netns: string;
}

/** Nobody dials before kubelet has seen the pod run, and a pod that starts has better things to do. */
const AFTER_MS = 1_000;
const OPEN_MS = 30_000;

/** Answers for a pod on the node's side of its localhost, as long as its guest lives. Never rejects. */
export async function servePodLocalhost(deps: PodLocalhostDeps): Promise<void> {
  const { netns, life, log } = deps;
  const call: Call = { signal: life };
  try {
    await sleep(AFTER_MS, call);
    const join = (socket: Parameters<typeof joinToGuest>[0], port: number) => joinToGuest(socket, port, deps);
    const door = await LocalhostDoor.open({ netns, join, log }, withDeadline(OPEN_MS, call));
    if (life.aborted) door.close();
    else life.addEventListener("abort", () => door.close(), { once: true });
  } catch (err) {
    if (!life.aborted) log.warn({ err }, "port-forward to this pod does not work");
  }
}
