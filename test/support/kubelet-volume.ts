import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";

/**
 * Writes a ConfigMap, Secret or projected volume as kubelet does: a new directory, `..data` turned over to it, links for
 * new keys, links of removed keys away, the old directory away.
 * Source: kubelet pkg/volume/util/atomic_writer.go.
 */
export function writeVolume(dir: string, files: Readonly<Record<string, string>>, mode = 0o644): void {
  mkdirSync(dir, { recursive: true });
  chmodSync(dir, 0o777);
  const stamp = new Date().toISOString().replace(/[-T:]/g, "_").slice(0, 19);
  const made = mkdtempSync(join(dir, `..${stamp}.`));
  chmodSync(made, 0o755);
  for (const [name, content] of Object.entries(files)) {
    writeFileSync(join(made, name), content);
    chmodSync(join(made, name), mode);
  }
  const data = join(dir, "..data");
  const old = isThere(data) ? readlinkSync(data) : undefined;
  symlinkSync(basename(made), `${data}_tmp`);
  renameSync(`${data}_tmp`, data);
  for (const name of Object.keys(files)) {
    if (!isThere(join(dir, name))) symlinkSync(join("..data", name), join(dir, name));
  }
  for (const name of readdirSync(dir)) {
    if (!name.startsWith("..") && files[name] === undefined) rmSync(join(dir, name));
  }
  if (old !== undefined) rmSync(join(dir, old), { recursive: true });
}

function isThere(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}
