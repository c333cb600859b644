import { readFile } from "node:fs/promises";

/** Files of the node as containerd and kubelet see them. */
export interface NodeFiles {
  /** Path by which this process reaches a path of theirs: mounts that came after its start do not always spread to it. */
  reach(path: string): string;
  /** Their table of mounts. */
  mountinfo(): Promise<string>;
}

/**
 * @param witness a process in the node's mount namespace: the relay, which the launcher starts there while this process
 *   has mounts of its own
 */
export function nodeFiles(witness: () => number): NodeFiles {
  const root = (): string => (witness() === process.pid ? "" : `/proc/${witness()}/root`);
  return {
    reach: (path) => `${root()}${path}`,
    mountinfo: () => readFile(`/proc/${witness()}/mountinfo`, "utf8"),
  };
}
