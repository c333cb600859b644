import { existsSync } from "node:fs";
import { join } from "node:path";
import { openApi } from "../adaptor/index.ts";
import { type Call, withDeadline } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import { writeFileAtomic } from "../base/files.ts";
import { AdminDefinition } from "../gen/kataremote/podvm/v1/admin.ts";
import { createClient, type ServiceClient } from "../grpc/index.ts";
import { loadAdaptorConfig } from "./adaptor.ts";
import { runDir } from "./control-client.ts";

const ANSWER_MS = 10_000;

interface Where {
  /** TOML of the adaptor, as for `kata-remote adaptor`. */
  readonly config?: string;
}

/** `kata-remote adaptor problems` */
export async function showProblems(options: Where, call: Call): Promise<void> {
  const { json } = await ask(options, (client, c) => client.problems({}, c), call);
  process.stdout.write(`${JSON.stringify(JSON.parse(json), undefined, 2)}\n`);
}

/** `kata-remote adaptor confirm-recovery`: the epoch shows that the operator has looked at this very recovery. */
export async function confirmRecovery(epoch: string, options: Where, call: Call): Promise<void> {
  await ask(options, (client, c) => client.confirmRecovery({ epoch }, c), call);
}

/** `kata-remote adaptor forget-node` */
export async function forgetNode(nodeId: string, options: Where, call: Call): Promise<void> {
  const { stoppingSandboxIds } = await ask(options, (client, c) => client.forgetNode({ nodeId }, c), call);
  process.stdout.write(`${stoppingSandboxIds.length} sandboxes are being stopped\n`);
}

/** `kata-remote adaptor openapi`: without a version, so that the committed document changes with the routes only. */
export function printOpenApi(): void {
  process.stdout.write(`${JSON.stringify(openApi("0"), undefined, 2)}\n`);
}

export interface TokenOptions extends Where {
  readonly node?: string;
  readonly hours: string;
  readonly out: string;
}

/** `kata-remote adaptor token`: writes the join file (0600); the token is in no output, hence in no shell history or log. */
export async function makeToken(options: TokenOptions, call: Call): Promise<void> {
  const hours = Number(options.hours);
  if (!(hours > 0)) throw new Fault("invalid_argument", `--hours is ${options.hours}: a number above 0 is needed`);
  const request = { nodeId: options.node ?? "", ttlSeconds: BigInt(Math.ceil(hours * 3600)) };
  const { token, caPem, expiresAt, joinAddress, address } = await ask(
    options,
    (client, c) => client.createJoinToken(request, c),
    call,
  );
  const file = { token, caPem, expiresAt, joinAddress, address };
  await writeFileAtomic(options.out, `${JSON.stringify(file, undefined, 2)}\n`);
  process.stdout.write(`${options.out} lets one node join until ${expiresAt}: set remote.joinFile there\n`);
}

async function ask<T>(
  { config }: Where,
  work: (client: ServiceClient<typeof AdminDefinition>, call: Call) => Promise<T>,
  call: Call,
): Promise<T> {
  const { grpc } = await loadAdaptorConfig(config);
  // `kata-remote up` has its socket in the node's run directory.
  const path = [grpc.socketPath, join(runDir(), "adaptor.sock")].find((p) => existsSync(p)) ?? grpc.socketPath;
  const client = createClient(AdminDefinition, { address: `unix://${path}` });
  try {
    return await work(client, withDeadline(ANSWER_MS, call));
  } finally {
    client.close();
  }
}
