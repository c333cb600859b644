import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { RUNTIME } from "./harness/containerd.ts";
import { DEBIAN } from "./harness/images.ts";
import { must, run } from "./harness/run-command.ts";
import { World } from "./harness/world.ts";

/** Made by the runtime in every container, so the same on no two machines. */
const NOT_COMPARED = ["./dev", "./proc", "./sys", "./run", "./etc/hostname", "./etc/hosts", "./etc/resolv.conf"];

/** Prints everything about a tree, in an order that does not depend on the file system. */
const MANIFEST = `
cd "$1" || exit 1
export LC_ALL=C
skip="${NOT_COMPARED.map((p) => `-path ${p} -prune -o`).join(" ")}"
echo "# entries"
find . -xdev -mindepth 1 $skip -type d -printf '%p d %m %U %G %T@\\n' -o $skip ! -type d -printf '%p %y %m %U %G %T@ %s %n %l\\n' | sort
echo "# devices"
find . -xdev $skip \\( -type b -o -type c \\) -exec stat -c '%n %t:%T' {} + | sort
echo "# xattrs"
find . -xdev $skip \\( -type f -o -type d \\) -exec getfattr -d -h -m - -e hex {} + 2>/dev/null
echo "# links"
find . -xdev $skip -type f -links +1 -printf 'inode %i %p\\n'
echo "# contents"
find . -xdev $skip -type f -exec sha256sum {} + | sort -k 2
`;

const SPECIAL = `
set -e
cd "$1"
mkdir -p odd/deep/er
cp bin/true odd/setuid; chmod 4751 odd/setuid; chown 1234:4321 odd/setuid; chmod 4751 odd/setuid
cp bin/true odd/capable
setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 odd/capable
echo text > odd/xattr; setfattr -n user.kata -v remote odd/xattr; setfattr -n trusted.kata -v deep odd/deep
ln odd/xattr odd/hard1; ln odd/xattr odd/deep/hard2
ln -s ../odd/nowhere odd/dangling; ln -s /etc/passwd odd/absolute
mknod odd/null c 1 3; mknod -m 600 odd/block b 7 200; mkfifo odd/fifo
truncate -s 1G odd/sparse; printf begin | dd of=odd/sparse conv=notrunc status=none; printf end | dd of=odd/sparse bs=1 seek=800000000 conv=notrunc status=none
printf 'name with\\nnewline' > 'odd/a b'; : > odd/empty; touch -d '2001-02-03 04:05:06.789' odd/empty
mkdir -m 1777 odd/sticky; mkdir -m 2755 odd/setgid; touch -h -d '1999-12-31' odd/dangling
touch -d '2010-01-01' odd/deep
`;

describe("a root file system from the node", () => {
  let world: World;
  before(async () => {
    world = await World.start({ images: ["debian"] });
  });
  after(() => world.close());

  it("arrives equal: owners, modes, times, xattrs, links, devices, sparse files", async () => {
    const { containerd, folder } = world;
    const mountPoint = join(folder, "m");
    const script = join(folder, "manifest.sh");
    mkdirSync(mountPoint);
    writeFileSync(script, MANIFEST);
    // Attributes named trusted.* are shown to this capability only.
    const flags = [
      "--runtime",
      RUNTIME,
      "--cap-add",
      "CAP_SYS_ADMIN",
      "--mount",
      `type=bind,src=${script},dst=/run/manifest.sh,options=rbind:ro`,
    ];
    await containerd.ctr(["container", "create", ...flags, DEBIAN, "tree", "bash", "/run/manifest.sh", "/"]);
    const mountCommand = await containerd.ctr(["snapshots", "mounts", mountPoint, "tree"]);
    await must("sh", ["-c", mountCommand]);
    let expected: string;
    try {
      await must("bash", ["-c", SPECIAL, "special", mountPoint]);
      expected = await must("bash", [script, mountPoint]);
    } finally {
      await must("umount", [mountPoint]);
    }
    assert.match(expected, /odd\/sparse/);
    const started = await containerd.tryCtr(["task", "start", "tree"], { timeoutMs: 400_000 });
    assert.equal(started.code, 0, started.stderr);
    assert.deepEqual(difference(expected, started.stdout), []);
    await containerd.ctr(["container", "rm", "tree"]);
  });

  it("keeps the holes of a sparse file", async () => {
    const { containerd, folder } = world;
    const tree = join(folder, "tree");
    await must("mkdir", ["-p", `${tree}/bin`]);
    await must("cp", ["/bin/busybox", `${tree}/bin/busybox`]);
    await must("truncate", ["-s", "1G", `${tree}/sparse`]);
    const command = ["/bin/busybox", "stat", "-c", "%s %b", "/sparse"];
    const args = ["run", "--rm", "--runtime", RUNTIME, "--rootfs", tree, "holes", ...command];
    const { code, stdout, stderr } = await containerd.tryCtr(args);
    assert.equal(code, 0, stderr);
    const [size, blocks] = stdout.trim().split(" ").map(Number);
    assert.equal(size, 1024 ** 3);
    assert.ok((blocks ?? Number.POSITIVE_INFINITY) < 2048, `${blocks} blocks of 512 bytes`);
    await run("rm", ["-rf", tree]);
  });
});

/** Lines that only one side has, at most 40. */
function difference(expected: string, actual: string): string[] {
  const a = new Set(groupLinks(expected));
  const b = new Set(groupLinks(actual));
  const missing = [...a].filter((line) => !b.has(line)).map((line) => `missing: ${line}`);
  const extra = [...b].filter((line) => !a.has(line)).map((line) => `extra: ${line}`);
  return [...missing, ...extra].slice(0, 40);
}

/** Replaces inode numbers, which differ everywhere, by one line for each set of names of the same file. */
function groupLinks(manifest: string): string[] {
  const lines = manifest.split("\n");
  const names = new Map<string, string[]>();
  for (const line of lines) {
    const [, inode, name] = /^inode (\d+) (.*)$/.exec(line) ?? [];
    if (inode !== undefined && name !== undefined) names.set(inode, [...(names.get(inode) ?? []), name]);
  }
  const groups = [...names.values()].map((group) => `one file: ${group.sort().join(" ")}`);
  return [...lines.filter((line) => !line.startsWith("inode ")), ...groups];
}
