import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type Static, Type } from "typebox";
import type { Call } from "../../base/call.ts";
import { parseConfig } from "../../base/config.ts";
import { Fault } from "../../base/fault.ts";
import { mkdirPrivate, readIfThere, writeFileAtomic } from "../../base/files.ts";
import type { Logger } from "../../base/log.ts";
import { JoinDefinition } from "../../gen/kataremote/podvm/v1/admin.ts";
import { createClient, type TlsIdentity } from "../../grpc/index.ts";
import { makeCsr, nodeCommonName } from "../../identity/index.ts";
import { nodeKey } from "./node-identity.ts";
import { patiently } from "./patience.ts";

/** What `kata-remote adaptor token` writes. */
const JoinFile = Type.Object({
  token: Type.String({ minLength: 1 }),
  caPem: Type.String({ minLength: 1 }),
  address: Type.String({ minLength: 1 }),
  joinAddress: Type.String({ minLength: 1 }),
  expiresAt: Type.Optional(Type.String()),
});
export type JoinFile = Static<typeof JoinFile>;

export interface JoinOptions {
  readonly nodeId: string;
  /** The node's key and what it was given are kept here. */
  readonly stateDir: string;
  readonly joinFile: string;
  readonly log: Logger;
}

/** Where the adaptor is, and how this node proves who it is. */
export interface Joined {
  readonly address: string;
  readonly tls: TlsIdentity;
}

/**
 * The certificate that this node has from an earlier join, or from a join with the file's token now. The file is needed
 * once, its token is of no use afterwards; only where the adaptor is is read from it again.
 * @throws Fault failed_precondition when the file may be read by others; what the adaptor says of the token
 */
export async function joinAdaptor(options: JoinOptions, call: Call): Promise<Joined> {
  const { nodeId, stateDir, joinFile, log } = options;
  const certificatePath = join(stateDir, "adaptor-node.crt");
  const caPath = join(stateDir, "adaptor-ca.crt");
  const addressPath = join(stateDir, "adaptor-address");
  await mkdirPrivate(stateDir);
  const keyPem = await nodeKey(stateDir);
  const [certificate, ca, address] = await Promise.all([certificatePath, caPath, addressPath].map(readIfThere));
  if (certificate !== undefined && ca !== undefined && address !== undefined) {
    return { address: address.trim(), tls: { caPem: ca, certificatePem: certificate, keyPem } };
  }
  const file = await readJoinFile(joinFile);
  const client = createClient(JoinDefinition, { address: file.joinAddress, tls: { caPem: file.caPem } });
  try {
    const request = { nodeId, csrPem: makeCsr(keyPem, nodeCommonName(nodeId)), token: file.token };
    const { certificatePem, caPem } = await patiently(
      `JoinNode at ${file.joinAddress}`,
      (c) => client.joinNode(request, c),
      call,
    );
    // The address last: without it the join is done again, which the adaptor allows.
    await writeFileAtomic(caPath, caPem);
    await writeFileAtomic(certificatePath, certificatePem);
    await writeFileAtomic(addressPath, file.address);
    log.info({ node: nodeId, adaptor: file.address }, "node joined");
    return { address: file.address, tls: { caPem, certificatePem, keyPem } };
  } finally {
    client.close();
  }
}

async function readJoinFile(path: string): Promise<JoinFile> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    const message = `remote.joinFile: ${path} cannot be read; make it with \`kata-remote adaptor token\``;
    throw new Fault(Fault.from(cause).code, message, { path }, { cause });
  }
  let input: unknown;
  try {
    input = JSON.parse(text);
  } catch (cause) {
    throw new Fault("invalid_argument", `remote.joinFile: ${path} is not what the token command wrote`, {}, { cause });
  }
  return parseConfig(JoinFile, input, path);
}
