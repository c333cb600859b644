import { createHash } from "node:crypto";
import type { OperationId, SandboxId } from "../../../base/ids.ts";
import type { InstanceClass, OwnerTags } from "../../../provider/index.ts";
import type { OperationInput } from "../../operation/index.ts";
import type { OperationRecord } from "../../store/index.ts";

/** What a batch's instances have in common, their tags and user-data aside; JSON of it is in the batch's record. */
type ClassShape = Omit<InstanceClass, "name" | "tags" | "userData">;

/** A create-batch operation, read. */
export interface Batch {
  readonly id: OperationId;
  /** Who it was begun for, in order. */
  readonly members: readonly SandboxId[];
  readonly place: string;
  readonly created: string;
  readonly shape: ClassShape;
}

/** Two specs with one key are interchangeable: their instances differ in nothing but what is assigned later. */
export function classKey(spec: InstanceClass): string {
  return createHash("sha256")
    .update(JSON.stringify(shapeOf(spec)))
    .update(spec.userData)
    .digest("base64url");
}

/** The record of a batch, written before it is asked for: all of the request but the user-data, which follows from a member. */
export function batchInput(
  spec: InstanceClass,
  place: string,
  members: readonly SandboxId[],
  created: Date,
): OperationInput["create-batch"] {
  return {
    shape: JSON.stringify(shapeOf(spec)),
    place,
    members: members.join(" "),
    created: created.toISOString(),
  };
}

export function readBatch({ id, input }: OperationRecord): Batch {
  return {
    id,
    members: (input.members ?? "").split(" ").filter((m) => m !== "") as SandboxId[],
    place: input.place ?? "",
    created: input.created ?? "",
    shape: JSON.parse(input.shape ?? "{}") as ClassShape,
  };
}

/** The class as the cloud sees it: named and tagged after the batch, since nobody knows yet which instance is whose. */
export function classOf({ id, shape, created }: Batch, cluster: string, userData: Uint8Array): InstanceClass {
  const tags: OwnerTags = { cluster, owner: "kata-remote", createOperation: id, created };
  return { ...shape, name: `podvm-${id.slice(0, 40)}`, tags, userData };
}

function shapeOf({ instanceType, vcpus, memoryMiB, gpus, image, rootDiskGiB, volumes }: InstanceClass): ClassShape {
  return {
    ...{ vcpus, memoryMiB, gpus },
    ...(instanceType === undefined ? {} : { instanceType }),
    ...(image === undefined ? {} : { image }),
    ...(rootDiskGiB === undefined ? {} : { rootDiskGiB }),
    ...(volumes === undefined ? {} : { volumes }),
  };
}
