import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Call } from "../base/call.ts";
import { exec } from "../base/exec.ts";
import { Fault } from "../base/fault.ts";
import { unifiedKernel } from "./bootdisk/index.ts";
import { makeDiskInitrd } from "./initrd.ts";
import { kernelVersion } from "./root-tree.ts";

/** Key and certificate that firmware in Secure Boot is to trust: paths of PEM files. */
export interface SigningKey {
  readonly key: string;
  readonly cert: string;
}

/**
 * Writes the program that firmware starts: stub, kernel, initrd and command line in one file, which can be signed.
 * @returns its path, below `dir`
 * @throws Fault failed_precondition when signing does not work
 */
export async function makeUnifiedKernel(
  input: {
    readonly tree: string;
    /** Package with systemd's EFI stub. */
    readonly stubDeb: string;
    readonly cmdline: string;
    readonly identity: string;
    readonly signing: SigningKey | undefined;
    readonly dir: string;
  },
  call: Call,
): Promise<string> {
  const { tree, signing, dir } = input;
  const version = await kernelVersion(tree);
  const unpacked = join(dir, "stub");
  await exec("dpkg-deb", ["-x", input.stubDeb, unpacked], call);
  const image = unifiedKernel(await readStub(unpacked), {
    kernel: await readFile(join(tree, "boot", `vmlinuz-${version}`)),
    initrd: await makeDiskInitrd(tree, version),
    cmdline: input.cmdline,
    osRelease: `ID=kata-remote\nNAME="kata-remote pod VM"\nVERSION_ID=${input.identity.slice(0, 12)}\n`,
    kernelVersion: version,
  });
  const path = join(dir, "kernel.efi");
  await writeFile(path, image);
  if (signing === undefined) return path;
  const signed = `${path}.signed`;
  try {
    await exec("sbsign", ["--key", signing.key, "--cert", signing.cert, "--output", signed, path], call);
  } catch (cause) {
    if (call.signal.aborted) throw cause;
    throw new Fault(
      "failed_precondition",
      "the kernel image could not be signed: that takes sbsign (apt-get install sbsigntool), a key and a certificate in PEM",
      {},
      { cause },
    );
  }
  return signed;
}

async function readStub(unpacked: string): Promise<Buffer> {
  const folder = join(unpacked, "usr/lib/systemd/boot/efi");
  const stub = (await readdir(folder)).find((name) => /^linux.*\.efi\.stub$/.test(name));
  if (stub === undefined) throw new Fault("unavailable", `the package of the EFI stub has none in ${folder}`);
  return await readFile(join(folder, stub));
}
