import type { Ec2Account } from "../account.ts";
import { ApiError } from "../api-error.ts";
import { stateOf } from "../ebs/operations.ts";
import type { Snapshot } from "../ebs/snapshots.ts";
import { renderTags } from "../instance.ts";
import { applyFilters, page } from "../listing.ts";
import type { XmlObject } from "../xml.ts";
import type { Action } from "./action.ts";

/** Snapshots that the images of the account came with are not listed: nobody made them here. */
export const describeSnapshots: Action = ({ account, params }) => {
  const ids = params.texts("SnapshotId");
  const owners = params.texts("Owner");
  if (ids.length > 0 && params.text("MaxResults") !== undefined)
    throw new ApiError(
      "InvalidParameterCombination",
      "The parameter snapshotSet cannot be used with the parameter maxResults",
    );
  const all = [...account.snapshots.all.values()];
  const missing = ids.find((id) => !account.snapshots.all.has(id));
  if (missing !== undefined)
    throw new ApiError("InvalidSnapshot.NotFound", `The snapshot '${missing}' does not exist.`);
  const asked = all
    .filter((s) => ids.length === 0 || ids.includes(s.id))
    .filter(() => owners.length === 0 || owners.some((o) => o === "self" || o === account.ownerId));
  const matching = applyFilters(
    asked,
    params.list("Filter"),
    {
      "snapshot-id": (s) => [s.id],
      status: (s) => [stateOf(account, s)],
      "owner-id": () => [account.ownerId],
      "volume-size": (s) => [String(s.sizeGiB)],
      description: (s) => [s.description],
    },
    (s) => s.tags,
  );
  const { items, nextToken } = page(account, params, matching, { min: 5, max: 1000 });
  return { snapshotSet: items.map((s) => renderSnapshot(account, s)), nextToken };
};

function renderSnapshot(account: Ec2Account, s: Snapshot): XmlObject {
  const state = stateOf(account, s);
  return {
    ...{ snapshotId: s.id, ownerId: account.ownerId, volumeId: "vol-ffffffff", volumeSize: s.sizeGiB },
    ...{ status: state, startTime: new Date(s.startedAt), progress: state === "completed" ? "100%" : "" },
    ...{ description: s.description, encrypted: s.encrypted, kmsKeyId: s.kmsKeyArn, storageTier: "standard" },
    completionTime: state === "completed" ? new Date(s.completedAt ?? s.startedAt) : undefined,
    tagSet: renderTags(s.tags),
  };
}

export const deleteSnapshot: Action = async ({ account, params, endDryRun }) => {
  const id = params.need("SnapshotId");
  if (!/^snap-[0-9a-f]{8,17}$/.test(id)) throw new ApiError("InvalidSnapshotID.Malformed", `Invalid id: "${id}"`);
  if (!account.snapshots.all.has(id))
    throw new ApiError("InvalidSnapshot.NotFound", `The snapshot '${id}' does not exist.`);
  const problem = refuseSnapshotInUse(account, id);
  if (problem !== undefined) throw problem;
  endDryRun();
  await account.snapshots.delete(id);
  return { return: true };
};

/** @returns what EC2 answers to deleting a snapshot that an image has */
export function refuseSnapshotInUse(account: Ec2Account, id: string): ApiError | undefined {
  const user = account.images.find((i) => i.devices.some((d) => d.snapshotId === id));
  if (user === undefined) return undefined;
  return new ApiError("InvalidSnapshot.InUse", `The snapshot ${id} is currently in use by ${user.id}`);
}
