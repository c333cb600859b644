import { join } from "node:path";
import type { Metadata } from "../ttrpc/index.ts";

/** Metadata that daemon and relay process add to calls which they pass on as bytes, and take off again. */
export const Meta = {
  /** Whose guest is called. */
  sandbox: "kata-remote-sandbox",
  /** Names work in progress, for Cancel. */
  operation: "kata-remote-operation",
  door: "kata-remote-door",
  connection: "kata-remote-connection",
  /** TaskRequest.key. */
  task: "kata-remote-task",
} as const;

const OWN: ReadonlySet<string> = new Set(Object.values(Meta));

export function metadataValue(metadata: Metadata, key: string): string | undefined {
  return metadata.find(([name]) => name === key)?.[1];
}

/** What the caller itself had put there. */
export function withoutOwn(metadata: Metadata): Metadata {
  return metadata.filter(([name]) => !OWN.has(name));
}

/** In the relay's directory: the daemon calls the relay. */
export function callSocket(dir: string): string {
  return join(dir, "c.sock");
}

/** In the relay's directory: the relay calls whichever daemon connected last. */
export function ownerSocket(dir: string): string {
  return join(dir, "a.sock");
}
