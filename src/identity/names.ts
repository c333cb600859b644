import { Fault } from "../base/fault.ts";

const NODE_ID = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$/;
const PREFIX = "node:";

/**
 * Common name of a node's certificate.
 * @throws Fault invalid_argument when the id would not survive in a certificate
 */
export function nodeCommonName(nodeId: string): string {
  if (!NODE_ID.test(nodeId)) {
    throw new Fault("invalid_argument", `node id "${nodeId}" is not valid: 1 to 63 of a-z A-Z 0-9 _ . - are`);
  }
  return PREFIX + nodeId;
}

/** The node that a certificate's common name stands for, or undefined when it is no node's. */
export function nodeIdOf(commonName: string): string | undefined {
  return commonName.startsWith(PREFIX) ? commonName.slice(PREFIX.length) : undefined;
}
