import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { type LayerEntry, makeLayer } from "./test-image.ts";

/** A layer with nothing but this machine's statically linked busybox under all its names. */
export async function busyboxLayer(more: readonly LayerEntry[] = []): Promise<Buffer> {
  const program = execFileSync("sh", ["-c", "command -v busybox"], { encoding: "utf8" }).trim();
  const applets = execFileSync(program, ["--list"], { encoding: "utf8" }).trim().split("\n");
  const directories = ["bin", "dev", "etc", "proc", "root", "sys", "tmp"];
  return makeLayer([
    { name: "./", type: "directory", mode: 0o755 },
    ...directories.map((name): LayerEntry => ({ name: `${name}/`, type: "directory", mode: 0o755 })),
    { name: "bin/busybox", mode: 0o755, content: readFileSync(program) },
    ...applets
      .filter((name) => name !== "busybox")
      .map((name): LayerEntry => ({ name: `bin/${name}`, type: "symlink", linkname: "busybox" })),
    { name: "etc/passwd", content: "root:x:0:0::/root:/bin/sh\n" },
    ...more,
  ]);
}
