import assert from "node:assert/strict";
import { it } from "node:test";
import { mountOrigin } from "./mount-origin.ts";

const POD = "/k/pods/u";
const MOUNTS = `
21 1 8:1 / / rw - ext4 /dev/sda1 rw
30 21 0:40 / ${POD}/volumes/kubernetes.io~empty-dir/mem rw - tmpfs tmpfs rw
31 21 0:40 /a\\040b ${POD}/volume-subpaths/mem/app/0 rw - tmpfs tmpfs rw
32 21 8:1 ${POD}/volumes/kubernetes.io~empty-dir/disk/x ${POD}/volume-subpaths/disk/app/1 rw - ext4 /dev/sda1 rw
33 21 0:41 /y ${POD}/volume-subpaths/gone/app/2 rw - tmpfs tmpfs rw
34 21 8:1 /srv/data ${POD}/volume-subpaths/host/app/3 rw - ext4 /dev/sda1 rw
35 21 8:1 /srv /export rw - ext4 /dev/sda1 rw
`.trim();

for (const [what, point, expected] of [
  ["a volume in memory", `${POD}/volume-subpaths/mem/app/0`, `${POD}/volumes/kubernetes.io~empty-dir/mem/a b`],
  ["a volume on the disk", `${POD}/volume-subpaths/disk/app/1`, `${POD}/volumes/kubernetes.io~empty-dir/disk/x`],
  ["a file system that is mounted nowhere else", `${POD}/volume-subpaths/gone/app/2`, undefined],
  ["a directory of the node", `${POD}/volume-subpaths/host/app/3`, "/export/data"],
  ["no mount", `${POD}/etc-hosts`, undefined],
] as const) {
  it(`finds where a subPath of ${what} lies`, () => assert.equal(mountOrigin(point, MOUNTS), expected));
}
