import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import { join } from "node:path";
import { Fault } from "../base/fault.ts";
import { mkdirPrivate, readIfThere, writeFileAtomic } from "../base/files.ts";

const NODE_ID = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$/;

/**
 * The node's name towards the adaptor, made once: the host's name for people, random digits against equal names.
 * @throws Fault failed_precondition when the file holds something else
 */
export async function nodeId(stateDir: string): Promise<string> {
  const path = join(stateDir, "node-id");
  const known = (await readIfThere(path))?.trim();
  if (known !== undefined) {
    if (NODE_ID.test(known)) return known;
    throw new Fault(
      "failed_precondition",
      `${path} holds "${known}", which is no node id: remove the file to get a new one`,
    );
  }
  await mkdirPrivate(stateDir);
  const name = hostname()
    .replaceAll(/[^A-Za-z0-9_.-]/g, "-")
    .replace(/^[^A-Za-z0-9]+/, "");
  const id = `${name.slice(0, 50) || "node"}-${randomBytes(4).toString("hex")}`;
  await writeFileAtomic(path, `${id}\n`);
  return id;
}
