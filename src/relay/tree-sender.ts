import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import type { TLSSocket } from "node:tls";
import type { Call } from "../base/call.ts";
import { Fault, type FaultCode } from "../base/fault.ts";
import { ended, race } from "../base/retry.ts";
import type { TreeReceipt, TreeSpec } from "./relay.ts";

/** Largest answer of the guest, bytes. */
const MAX_REPLY = 64 * 1024;
/** Fixed: neither TAR_OPTIONS nor a locale of the node may change the stream. */
const TAR_ENV = { PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" };

/** Checked by hand: a schema library would be most of the relay process's bundle. */
type Reply =
  | { readonly ok: true; readonly sha256?: string; readonly skipped?: boolean }
  | { readonly ok: false; readonly code: string; readonly message: string };

/**
 * Sends one directory tree over a connection that carries nothing else, then closes it.
 *
 * Wire: u32be length + JSON {"treeId"}; frames u32be length + bytes of a tar stream; length 0; 32 bytes SHA-256 of
 * the tar stream. The guest answers once, u32be length + JSON: {"ok":true,"bytes","sha256"} or, at any time,
 * {"ok":true,"skipped":true} (it has the tree) or {"ok":false,"code","message"}.
 * @throws Fault with the guest's code and message; unavailable when the connection broke; internal when tar failed
 */
export async function sendTree(socket: TLSSocket, tree: TreeSpec, call: Call): Promise<TreeReceipt> {
  if (call.signal.aborted) throw ended(call);
  const stop = new AbortController();
  const scope = { ...call, signal: AbortSignal.any([call.signal, stop.signal]) };
  try {
    const reply = readReply(socket);
    // An early answer (skipped, disk full) ends the sending; a broken connection ends both.
    const sent = await Promise.race([writeTree(socket, tree, scope), race(reply, call).then(() => undefined)]);
    const answer = checkReply(await race(reply, call));
    if (!answer.ok) {
      throw new Fault(
        codeOf(answer.code),
        `root filesystem ${tree.path} could not be put into the pod VM: ${answer.message}`,
      );
    }
    if (answer.skipped === true) return { bytes: 0, sha256: "", skipped: true };
    if (sent === undefined || answer.sha256 !== sent.sha256) {
      throw new Fault(
        "internal",
        `root filesystem ${tree.path} arrived damaged in the pod VM: checksums differ`,
        {},
        { retryable: true },
      );
    }
    return { ...sent, skipped: false };
  } finally {
    stop.abort();
    socket.destroy();
  }
}

async function writeTree(socket: TLSSocket, tree: TreeSpec, call: Call): Promise<{ bytes: number; sha256: string }> {
  const header = Buffer.from(JSON.stringify({ treeId: tree.treeId }));
  socket.write(Buffer.concat([u32(header.length), header]));
  const tar = spawn(
    "tar",
    ["-c", "--format=pax", "--xattrs", "--xattrs-include=*", "--sparse", "--numeric-owner", "-C", tree.path, "."],
    { stdio: ["ignore", "pipe", "pipe"], env: TAR_ENV, signal: call.signal },
  );
  const exit = new Promise<number | null>((resolve, reject) => {
    tar.on("error", reject);
    tar.on("close", resolve);
  });
  exit.catch(() => undefined); // awaited after the copy, which ends when tar does
  let said = "";
  tar.stderr.setEncoding("utf8").on("data", (text: string) => {
    said = (said + text).slice(-2000);
  });
  const hash = createHash("sha256");
  let bytes = 0;
  for await (const chunk of tar.stdout as AsyncIterable<Buffer>) {
    hash.update(chunk);
    bytes += chunk.length;
    socket.cork();
    socket.write(u32(chunk.length));
    const more = socket.write(chunk);
    socket.uncork();
    if (!more) await once(socket, "drain", { signal: call.signal });
  }
  const exitCode = await exit.catch((cause: unknown) => {
    throw call.signal.aborted
      ? ended(call, cause)
      : new Fault("unavailable", "tar is not installed on this node", {}, { cause, retryable: false });
  });
  if (exitCode !== 0) {
    throw new Fault(
      "internal",
      `tar of root filesystem ${tree.path} ended with ${exitCode ?? "a signal"}: ${said.trim()}`,
    );
  }
  const digest = hash.digest();
  socket.write(Buffer.concat([u32(0), digest]));
  return { bytes, sha256: digest.toString("hex") };
}

/** @throws Fault unavailable when the connection ends before an answer */
async function readReply(socket: TLSSocket): Promise<unknown> {
  let data = Buffer.alloc(0);
  try {
    for await (const chunk of socket as AsyncIterable<Buffer>) {
      data = Buffer.concat([data, chunk]);
      if (data.length < 4) continue;
      const length = data.readUInt32BE(0);
      if (length > MAX_REPLY) throw new Fault("internal", `the pod VM answered a tree with ${length} bytes`);
      if (data.length >= 4 + length) return JSON.parse(data.toString("utf8", 4, 4 + length)) as unknown;
    }
  } catch (cause) {
    if (cause instanceof Fault) throw cause;
    throw new Fault(
      "unavailable",
      "the connection to the pod VM broke while a root filesystem was sent",
      {},
      { cause },
    );
  }
  throw new Fault("unavailable", "the pod VM closed the connection while a root filesystem was sent");
}

function u32(value: number): Buffer {
  const buffer = Buffer.allocUnsafe(4);
  buffer.writeUInt32BE(value);
  return buffer;
}

const CODES: readonly FaultCode[] = [
  "invalid_argument",
  "failed_precondition",
  "resource_exhausted",
  "unavailable",
  "aborted",
  "internal",
];

function codeOf(code: string): FaultCode {
  return CODES.find((known) => known === code) ?? "internal";
}

/** @throws Fault invalid_argument when the guest answers something else */
function checkReply(value: unknown): Reply {
  const { ok, code, message, sha256, skipped } = (value ?? {}) as Record<string, unknown>;
  if (ok === false && typeof code === "string" && typeof message === "string") return { ok, code, message };
  if (
    ok === true &&
    (sha256 === undefined || typeof sha256 === "string") &&
    (skipped === undefined || typeof skipped === "boolean")
  ) {
    return { ok, ...(sha256 === undefined ? {} : { sha256 }), ...(skipped === undefined ? {} : { skipped }) };
  }
  throw new Fault("invalid_argument", "the pod VM's answer to a tree is none that this version knows");
}
