import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, realpathSync } from "node:fs";
import { basename, join } from "node:path";
import { addressBytes } from "../../../src/base/address.ts";
import { must } from "../harness/run-command.ts";

const SCRIPT = join(import.meta.dirname, "peer.pl");
const PERL = "/usr/bin/perl";
/** Where pods have the program. */
const IN_POD = "/peer";
const BLOCK = 65_536;

/** peer.pl on this machine, as words of a command. */
export function peerHere(...args: readonly string[]): readonly string[] {
  return [PERL, SCRIPT, ...args];
}

/** peer.pl in a pod that has what `packPeer` made, at the same place as here. */
export function peerInPod(...args: readonly string[]): readonly string[] {
  return [`${IN_POD}/ld.so`, "--library-path", IN_POD, `${IN_POD}/perl`, `${IN_POD}/peer.pl`, ...args];
}

/** `peer.pl udp-ask`, of an address as one writes it. */
export function udpAsk(address: string, port: number, bytes: number): readonly string[] {
  return ["udp-ask", addressBytes(address).toString("hex"), String(port), String(bytes)];
}

/** Puts perl, its libraries and the script into a folder: an image of its own would be carried into each VM whole. */
export async function packPeer(folder: string): Promise<{ readonly containerPath: string; readonly hostPath: string }> {
  mkdirSync(folder);
  copyFileSync(PERL, join(folder, "perl"));
  copyFileSync(SCRIPT, join(folder, "peer.pl"));
  for (const [, path = ""] of (await must("ldd", [PERL])).matchAll(/(\/\S+) \(0x/g)) {
    const name = basename(path);
    copyFileSync(realpathSync(path), join(folder, name.startsWith("ld-linux") ? "ld.so" : name));
  }
  return { containerPath: IN_POD, hostPath: folder };
}

/** The sum of what `peer.pl tcp-send` sends, as md5sum prints it. */
export function streamSum(mib: number): string {
  const block = Buffer.alloc(BLOCK);
  for (let i = 16; i < BLOCK; i++) block[i] = i * 167 + (i >> 8) * 13;
  const hash = createHash("md5");
  for (let i = 0; i < mib * 16; i++) {
    block.write(String(i).padStart(16, "0"), 0, "latin1");
    hash.update(block);
  }
  return hash.digest("hex");
}
