import { createHash } from "node:crypto";
import type { Ec2Account } from "../account.ts";
import { ApiError } from "../api-error.ts";
import { BLOCK_BYTES, type Snapshot } from "./snapshots.ts";
import type { RestReply } from "./wire.ts";

export type Operation =
  | "StartSnapshot"
  | "PutSnapshotBlock"
  | "CompleteSnapshot"
  | "ListSnapshotBlocks"
  | "GetSnapshotBlock";

export interface Route {
  readonly operation: Operation;
  readonly uri: Readonly<Record<string, string>>;
  readonly query: URLSearchParams;
}

interface Asked {
  readonly account: Ec2Account;
  readonly uri: Readonly<Record<string, string>>;
  readonly query: URLSearchParams;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Buffer;
}

const ROUTES: readonly (readonly [string, RegExp, Operation])[] = [
  ["POST", /^\/snapshots$/, "StartSnapshot"],
  ["PUT", /^\/snapshots\/(?<snapshotId>[^/]+)\/blocks\/(?<blockIndex>[^/]+)$/, "PutSnapshotBlock"],
  ["GET", /^\/snapshots\/(?<snapshotId>[^/]+)\/blocks\/(?<blockIndex>[^/]+)$/, "GetSnapshotBlock"],
  ["POST", /^\/snapshots\/completion\/(?<snapshotId>[^/]+)$/, "CompleteSnapshot"],
  ["GET", /^\/snapshots\/(?<snapshotId>[^/]+)\/blocks$/, "ListSnapshotBlocks"],
];

export function routeOf(method: string, path: string): Route | undefined {
  const [resource = "", query] = path.split("?");
  for (const [verb, pattern, operation] of ROUTES) {
    const found = verb === method ? pattern.exec(resource) : null;
    if (found !== null) return { operation, uri: { ...found.groups }, query: new URLSearchParams(query) };
  }
  return undefined;
}

/** Source: EBS direct APIs reference. Errors and their reasons are those of its service model. */
export const OPERATIONS: Readonly<Record<Operation, (asked: Asked) => Promise<RestReply>>> = {
  StartSnapshot: startSnapshot,
  PutSnapshotBlock: putSnapshotBlock,
  CompleteSnapshot: completeSnapshot,
  ListSnapshotBlocks: listSnapshotBlocks,
  GetSnapshotBlock: getSnapshotBlock,
};

/** What StartSnapshot takes, as JSON. */
interface StartInput {
  readonly VolumeSize?: number;
  readonly ParentSnapshotId?: string;
  readonly Tags?: readonly { readonly Key: string; readonly Value: string }[];
  readonly Description?: string;
  readonly ClientToken?: string;
  readonly Encrypted?: boolean;
  readonly KmsKeyArn?: string;
  readonly Timeout?: number;
}

async function startSnapshot({ account, body }: Asked): Promise<RestReply> {
  const input = JSON.parse(body.toString()) as StartInput;
  const { VolumeSize: sizeGiB = 0, Tags = [], Encrypted, KmsKeyArn, ClientToken, Timeout = 60 } = input;
  if (input.ParentSnapshotId !== undefined)
    throw new ApiError("NotImplementedByTestEndpoint", "this test endpoint has no incremental snapshots", 501);
  if (sizeGiB > 65_536) throw invalid("INVALID_VOLUME_SIZE", "VolumeSize is at most 65536 GiB");
  if (KmsKeyArn !== undefined && Encrypted !== true)
    throw invalid("INVALID_PARAMETER_VALUE", "KmsKeyArn requires Encrypted to be true");
  if (Tags.length > 50 || Tags.some((t) => t.Key.toLowerCase().startsWith("aws:")))
    throw invalid("INVALID_TAG", "a snapshot has at most 50 tags, and none of aws:");
  const parameters = JSON.stringify(input);
  const earlier = ClientToken === undefined ? undefined : account.snapshotStarts.get(ClientToken);
  if (earlier !== undefined) {
    if (earlier.parameters !== parameters)
      throw new ApiError("ConflictException", "the client token was used with other parameters", 409);
    const same = account.snapshots.all.get(earlier.id);
    if (same !== undefined) return started(account, same);
  }
  const pending = [...account.snapshots.all.values()].filter((s) => stateOf(account, s) === "pending");
  if (pending.length >= account.knobs.pendingSnapshots)
    throw new ApiError("ConcurrentLimitExceededException", "there are too many pending snapshots in this account");
  const now = account.now();
  const made = account.snapshots.create({
    ...{ sizeGiB, description: input.Description ?? "", startedAt: now, lastWriteAt: now },
    ...{ encrypted: Encrypted === true, kmsKeyArn: KmsKeyArn, timeoutMs: Timeout * 60_000 },
    tags: new Map(Tags.map((t) => [t.Key, t.Value])),
  });
  if (ClientToken !== undefined) account.snapshotStarts.set(ClientToken, { id: made.id, parameters });
  return started(account, made);
}

function started(account: Ec2Account, s: Snapshot): RestReply {
  return json(201, {
    ...{ SnapshotId: s.id, OwnerId: account.ownerId, Status: s.state, StartTime: s.startedAt / 1000 },
    ...{ VolumeSize: s.sizeGiB, BlockSize: BLOCK_BYTES },
    ...(s.description === "" ? {} : { Description: s.description }),
    ...(s.tags.size === 0 ? {} : { Tags: [...s.tags].map(([Key, Value]) => ({ Key, Value })) }),
    ...(s.kmsKeyArn === undefined ? {} : { KmsKeyArn: s.kmsKeyArn }),
  });
}

async function putSnapshotBlock({ account, uri, headers, body }: Asked): Promise<RestReply> {
  const snapshot = pendingOf(account, uri.snapshotId ?? "");
  const index = indexOf(uri, snapshot);
  if (body.length !== BLOCK_BYTES || Number(headers["x-amz-data-length"]) !== body.length)
    throw invalid("INVALID_BLOCK", `a block has ${BLOCK_BYTES} bytes, this one has ${body.length}`);
  const checksum = createHash("sha256").update(body).digest("base64");
  if (headers["x-amz-checksum-algorithm"] !== "SHA256" || headers["x-amz-checksum"] !== checksum)
    throw invalid("INVALID_BLOCK", "the checksum does not match the block's data");
  await account.snapshots.write(snapshot, index, body, checksum);
  snapshot.lastWriteAt = account.now();
  return {
    status: 201,
    headers: { "x-amz-Checksum": checksum, "x-amz-Checksum-Algorithm": "SHA256" },
    body: "",
  };
}

async function completeSnapshot({ account, uri, headers }: Asked): Promise<RestReply> {
  const id = uri.snapshotId ?? "";
  const known = account.snapshots.all.get(id);
  // Completing again what is complete is a success.
  if (known !== undefined && stateOf(account, known) === "completed") return json(202, { Status: "completed" });
  const snapshot = pendingOf(account, id);
  const count = Number(headers["x-amz-changedblockscount"]);
  if (count !== snapshot.blocks.size)
    throw invalid("INVALID_PARAMETER_VALUE", `${snapshot.blocks.size} blocks were written, not ${count}`);
  const whole = headers["x-amz-checksum"];
  if (whole !== undefined) {
    // LINEAR: the hash of the blocks' hashes, in the order of the blocks.
    const hash = createHash("sha256");
    for (const [, sum] of [...snapshot.blocks].sort(([a], [b]) => a - b)) hash.update(Buffer.from(sum, "base64"));
    if (headers["x-amz-checksum-aggregation-method"] !== "LINEAR" || hash.digest("base64") !== whole)
      throw invalid("INVALID_PARAMETER_VALUE", "the checksum does not match the blocks that were written");
  }
  snapshot.completedAt = account.now() + account.knobs.snapshotMs;
  return json(202, { Status: stateOf(account, snapshot) });
}

async function listSnapshotBlocks({ account, uri, query }: Asked): Promise<RestReply> {
  const snapshot = completedOf(account, uri.snapshotId ?? "");
  const token = query.get("pageToken");
  const first = token === null ? Number(query.get("startingBlockIndex") ?? 0) : Number(Buffer.from(token, "base64"));
  if (!Number.isInteger(first)) throw invalid("INVALID_PAGE_TOKEN", "the page token is not one of this request");
  const max = Math.min(Number(query.get("maxResults") ?? 10_000), Math.max(100, account.knobs.maxPage));
  const all = [...snapshot.blocks.keys()].filter((i) => i >= first).sort((a, b) => a - b);
  const next = all[max];
  return json(200, {
    Blocks: all.slice(0, max).map((i) => ({ BlockIndex: i, BlockToken: tokenOf(snapshot, i) })),
    ...{ ExpiryTime: account.now() / 1000 + 7 * 86_400, VolumeSize: snapshot.sizeGiB, BlockSize: BLOCK_BYTES },
    ...(next === undefined ? {} : { NextToken: Buffer.from(String(next)).toString("base64") }),
  });
}

async function getSnapshotBlock({ account, uri, query }: Asked): Promise<RestReply> {
  const snapshot = completedOf(account, uri.snapshotId ?? "");
  const index = indexOf(uri, snapshot);
  if (query.get("blockToken") !== tokenOf(snapshot, index))
    throw invalid("INVALID_BLOCK_TOKEN", "the block token is not one of this block");
  const data = await account.snapshots.read(snapshot, index);
  return {
    status: 200,
    headers: {
      "content-type": "application/octet-stream",
      "x-amz-Data-Length": String(data.length),
      "x-amz-Checksum": createHash("sha256").update(data).digest("base64"),
      "x-amz-Checksum-Algorithm": "SHA256",
    },
    body: data,
  };
}

/** A pending snapshot becomes complete by time, or fails when nobody writes to it. */
export function stateOf(account: Ec2Account, s: Snapshot): Snapshot["state"] {
  if (s.state !== "pending") return s.state;
  if (s.completedAt !== undefined && account.now() >= s.completedAt) s.state = "completed";
  else if (s.completedAt === undefined && account.now() - s.lastWriteAt > s.timeoutMs) s.state = "error";
  return s.state;
}

function pendingOf(account: Ec2Account, id: string): Snapshot {
  const snapshot = needed(account, id);
  if (stateOf(account, snapshot) !== "pending" || snapshot.completedAt !== undefined)
    throw invalid("INVALID_SNAPSHOT_ID", `the snapshot ${id} is not pending`);
  return snapshot;
}

/** Source: EBS user guide, EBS direct APIs, FAQ: only a completed snapshot can be read. */
function completedOf(account: Ec2Account, id: string): Snapshot {
  const snapshot = needed(account, id);
  if (stateOf(account, snapshot) !== "completed")
    throw invalid("INVALID_SNAPSHOT_ID", `the snapshot ${id} is not completed`);
  return snapshot;
}

function needed(account: Ec2Account, id: string): Snapshot {
  const snapshot = account.snapshots.all.get(id);
  if (snapshot !== undefined) return snapshot;
  throw new ApiError("ResourceNotFoundException", `The snapshot '${id}' does not exist.`, 404, "SNAPSHOT_NOT_FOUND");
}

function indexOf(uri: Readonly<Record<string, string>>, snapshot: Snapshot): number {
  const index = Number(uri.blockIndex);
  if (Number.isInteger(index) && index >= 0 && index < (snapshot.sizeGiB * 1024 ** 3) / BLOCK_BYTES) return index;
  throw invalid("INVALID_PARAMETER_VALUE", `block ${uri.blockIndex} is not inside of the volume`);
}

function tokenOf(snapshot: Snapshot, index: number): string {
  return createHash("sha256").update(`${snapshot.id}/${index}`).digest("base64");
}

function invalid(reason: string, message: string): ApiError {
  return new ApiError("ValidationException", message, 400, reason);
}

function json(status: number, value: object): RestReply {
  return { status, headers: {}, body: JSON.stringify(value) };
}
