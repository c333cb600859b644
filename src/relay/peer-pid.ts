import type { Socket } from "node:net";
import { Fault } from "../base/fault.ts";

/** Source: include/uapi/asm-generic/socket.h; x64 and arm64 use it. */
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
/** struct ucred: pid, uid, gid. */
const UCRED_BYTES = 12;

type GetSockOpt = (fd: number, level: number, name: number, value: Buffer, length: Buffer) => number;
let getsockopt: GetSockOpt | undefined;

/**
 * The process that connected a unix socket, as this process numbers it. Node has no call for it, so koffi is loaded with
 * the first question.
 * @throws Fault failed_precondition when koffi is not installed, or the peer is in a PID namespace that we do not see
 */
export async function peerPid(socket: Socket): Promise<number> {
  getsockopt ??= await loadGetsockopt();
  const fd = (socket as unknown as { readonly _handle?: { readonly fd?: number } })._handle?.fd ?? -1;
  const credentials = Buffer.alloc(UCRED_BYTES);
  const length = Buffer.alloc(4);
  length.writeInt32LE(UCRED_BYTES);
  const failed = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, credentials, length) !== 0;
  const pid = credentials.readInt32LE(0);
  if (failed || pid <= 0) {
    throw new Fault(
      "failed_precondition",
      "the process behind a unix socket is not known: the node daemon must be in the PID namespace of the shims (hostPID)",
    );
  }
  return pid;
}

async function loadGetsockopt(): Promise<GetSockOpt> {
  try {
    const { default: koffi } = await import("koffi");
    const prototype = "int getsockopt(int fd, int level, int name, void *value, void *length)";
    return koffi.load("libc.so.6").func(prototype) as unknown as GetSockOpt;
  } catch (cause) {
    throw new Fault(
      "failed_precondition",
      "koffi cannot be loaded, which stock shims' root filesystems need: install kata-remote with its optional dependencies",
      {},
      { cause },
    );
  }
}
