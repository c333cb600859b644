import { background, type Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { race } from "../../base/retry.ts";
import type {
  CreateTaskRequest,
  DeleteResponse,
  ExecProcessRequest,
  UpdateTaskRequest,
} from "../../gen/containerd/task/v2/shim.ts";
import { Status } from "../../gen/containerd/types/task/task.ts";
import type { Any } from "../../gen/google/protobuf/any.ts";
import { OciResources, parseOci } from "../agent/index.ts";
import type { Exit, Stdio } from "../sandbox/index.ts";
import { timestamp } from "./timestamp.ts";

export const PROCESS_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Process";
const RESOURCES_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

export const STATUS = {
  created: Status.CREATED,
  running: Status.RUNNING,
  paused: Status.PAUSED,
  stopped: Status.STOPPED,
} as const;

export function answerOfDelete(pid: number, exit: Exit): DeleteResponse {
  return { pid, exitStatus: exit.status, exitedAt: timestamp(exit.at) };
}

export function stdioOf(request: CreateTaskRequest | ExecProcessRequest): Stdio {
  const { terminal, stdin, stdout, stderr } = request;
  return { terminal, stdin, stdout, stderr };
}

/** @throws Fault invalid_argument */
export function readResources(request: UpdateTaskRequest): OciResources {
  return parseOci(OciResources, jsonOf(request.resources, RESOURCES_TYPE, "resources"), "resources");
}

/** @throws Fault invalid_argument naming the type that was expected */
export function jsonOf(any: Any | undefined, type: string, what: string): string {
  if (any?.typeUrl !== type)
    throw new Fault("invalid_argument", `${what} is of type "${any?.typeUrl ?? ""}", "${type}" is expected`);
  return any.value.toString("utf8");
}

/** Waits for all, at most until the call ends; what is not done by then goes on. */
export async function waitFor(work: readonly Promise<unknown>[], call: Call = background()): Promise<void> {
  await race(Promise.allSettled(work), call).catch(() => undefined); // only "too late" gets here
}
