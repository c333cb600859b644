interface MountEntry {
  readonly device: string;
  /** Path inside of the file system that is mounted. */
  readonly root: string;
  readonly point: string;
}

/**
 * Where the files of a bind mount lie outside of it: the same file system's other mount that holds them, a volume's
 * own one first. undefined when nothing is mounted at `path`, or its file system nowhere else.
 * @param mountinfo of the node
 * Source: Linux Documentation/filesystems/proc.rst "mountinfo".
 */
export function mountOrigin(path: string, mountinfo: string): string | undefined {
  const entries = parse(mountinfo);
  // The last one covers those before it.
  const mounted = entries.findLast((e) => e.point === path);
  if (mounted === undefined) return undefined;
  const holders = entries.filter(
    (e) => e.device === mounted.device && e.point !== path && isBelow(mounted.root, e.root) && !isSubPathMount(e.point),
  );
  const best = holders.findLast((e) => e.point.includes("/volumes/kubernetes.io~")) ?? longestRoot(holders);
  if (best === undefined) return undefined;
  const below = best.root === "/" ? mounted.root : mounted.root.slice(best.root.length);
  return `${best.point === "/" ? "" : best.point}${below === "/" ? "" : below}`;
}

/** Other subPaths of the same volume say nothing new. */
function isSubPathMount(point: string): boolean {
  return point.includes("/volume-subpaths/");
}

function isBelow(path: string, root: string): boolean {
  return root === "/" || path === root || path.startsWith(`${root}/`);
}

function longestRoot(entries: readonly MountEntry[]): MountEntry | undefined {
  return [...entries].sort((a, b) => a.root.length - b.root.length).at(-1);
}

function parse(text: string): MountEntry[] {
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => {
      const [, , device = "", root = "", point = ""] = line.split(" ");
      return { device, root: unescapeOctal(root), point: unescapeOctal(point) };
    });
}

function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_all, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}
