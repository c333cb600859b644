import { chmodSync, chownSync, closeSync, lstatSync, openSync, type Stats, utimesSync } from "node:fs";
import { openInRoot, pathIn } from "./in-root.ts";
import type { StoredLayer } from "./layer-store.ts";

/**
 * A directory that a layer needs but has no entry for should look as in the layers below it. Unpacked on its own it got
 * standard attributes, which overlay would show: they are replaced here, once. Where one layer is in images with unlike
 * layers below, the first image decides.
 * @param layers lowest first
 */
export function settleImplicitDirectories(layers: readonly StoredLayer[]): void {
  for (const [i, layer] of layers.entries()) {
    const paths = [...layer.implicit].sort();
    if (i > 0) for (const path of paths) copyFromBelow(layer, path, layers.slice(0, i));
    layer.implicit.clear();
  }
}

function copyFromBelow(layer: StoredLayer, path: string, below: readonly StoredLayer[]): void {
  for (const lower of below.toReversed()) {
    const found = lookUp(lower.directory, path);
    if (found === "nothing") continue;
    if (found === "other") return; // removed or replaced there: what lies deeper is not seen
    const root = openSync(layer.directory, "r");
    try {
      const fd = openInRoot(root, path);
      try {
        chownSync(pathIn(fd, "."), found.uid, found.gid);
        chmodSync(pathIn(fd, "."), found.mode & 0o7777);
        utimesSync(pathIn(fd, "."), found.atime, found.mtime);
      } finally {
        closeSync(fd);
      }
    } finally {
      closeSync(root);
    }
    return;
  }
}

type Found = "nothing" | "other" | Stats;

function lookUp(layer: string, path: string): Found {
  const root = openSync(layer, "r");
  try {
    const slash = path.lastIndexOf("/");
    const parent = openInRoot(root, slash < 0 ? "" : path.slice(0, slash));
    try {
      const s = lstatSync(pathIn(parent, path === "" ? "." : path.slice(slash + 1)), { throwIfNoEntry: false });
      if (s === undefined) return "nothing";
      return s.isDirectory() ? s : "other";
    } finally {
      closeSync(parent);
    }
  } catch (e) {
    const { code } = e as NodeJS.ErrnoException;
    if (code === "ENOENT") return "nothing";
    if (code === "ENOTDIR" || code === "ELOOP") return "other";
    throw e;
  } finally {
    closeSync(root);
  }
}
