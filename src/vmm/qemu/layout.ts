import { join } from "node:path";
import { Fault } from "../../base/fault.ts";

/** The files of one VM, all inside of its directory. */
export interface VmFiles {
  /** What this driver knows of the VM; see state.ts. */
  readonly state: string;
  readonly overlay: string;
  readonly seed: string;
  readonly qmpSocket: string;
  readonly pid: string;
  readonly console: string;
  /** The part of the console that was cut off last. */
  readonly consoleBefore: string;
  /** stdout and stderr of QEMU. */
  readonly log: string;
}

/** sun_path holds 108 bytes with the final NUL (unix(7)). */
const MAX_SOCKET_PATH_BYTES = 107;

/** @throws Fault invalid_argument when the directory's path is too long for a socket in it */
export function filesIn(dir: string): VmFiles {
  const qmpSocket = join(dir, "qmp.sock");
  if (Buffer.byteLength(qmpSocket) > MAX_SOCKET_PATH_BYTES) {
    throw new Fault(
      "invalid_argument",
      `${dir} is too long for a unix socket inside: at most ${MAX_SOCKET_PATH_BYTES - 9} bytes are possible, choose a shorter state directory`,
    );
  }
  return {
    state: join(dir, "vm.json"),
    overlay: join(dir, "overlay.qcow2"),
    seed: join(dir, "seed.iso"),
    qmpSocket,
    pid: join(dir, "qemu.pid"),
    console: join(dir, "console.log"),
    consoleBefore: join(dir, "console.log.1"),
    log: join(dir, "qemu.log"),
  };
}
