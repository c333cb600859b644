import type { Ec2Account, Image } from "../account.ts";
import { ApiError, notImplemented } from "../api-error.ts";
import { applyFilters, page } from "../listing.ts";
import type { XmlObject } from "../xml.ts";
import type { Action } from "./action.ts";
import { tagSet } from "./catalogue.ts";
import { refuseSnapshotInUse } from "./snapshots.ts";
import { readTagSpecifications } from "./tag-request.ts";
import { readDevices, snapshotSize } from "./volume-request.ts";

export const describeImages: Action = ({ account, params }) => {
  const ids = params.texts("ImageId");
  const owners = params.texts("Owner");
  for (const id of ids) {
    if (!/^ami-[0-9a-f]{8,17}$/.test(id))
      throw new ApiError("InvalidAMIID.Malformed", `Invalid id: "${id}" (expecting "ami-...")`);
    if (!account.images.some((i) => i.id === id)) {
      throw new ApiError("InvalidAMIID.NotFound", `The image id '[${id}]' does not exist`);
    }
  }
  const asked = account.images
    .filter((i) => ids.length === 0 || ids.includes(i.id))
    .filter((i) => owners.length === 0 || owners.some((o) => o === i.ownerId || o === "self"));
  const matching = applyFilters(
    asked,
    params.list("Filter"),
    {
      name: (i) => [i.name],
      state: (i) => [i.state],
      architecture: (i) => [i.arch],
      "boot-mode": (i) => [i.bootMode],
      "image-id": (i) => [i.id],
      "owner-id": (i) => [i.ownerId],
      "block-device-mapping.snapshot-id": (i) => i.devices.map((d) => d.snapshotId),
    },
    (i) => account.otherTags.get(i.id) ?? new Map(),
  );
  const { items, nextToken } = page(account, params, matching, { min: 1, max: 1000 });
  return { imagesSet: items.map((i) => renderImage(account, i)), nextToken };
};

function renderImage(account: Ec2Account, i: Image): XmlObject {
  return {
    ...{ imageId: i.id, imageLocation: `${i.ownerId}/${i.name}`, imageState: i.state, imageOwnerId: i.ownerId },
    ...{ creationDate: i.created, isPublic: false, architecture: i.arch, imageType: "machine", name: i.name },
    ...{ rootDeviceType: "ebs", rootDeviceName: i.devices[0]?.device, virtualizationType: "hvm", hypervisor: "xen" },
    ...{ enaSupport: true, bootMode: i.bootMode, imdsSupport: "v2.0" },
    ...{ description: i.description, tpmSupport: i.tpm === true ? "v2.0" : undefined },
    blockDeviceMapping: i.devices.map((d) => ({
      deviceName: d.device,
      ebs: {
        ...{ deleteOnTermination: d.deleteOnTermination, snapshotId: d.snapshotId, volumeSize: d.sizeGiB },
        ...{ volumeType: "gp2", encrypted: false },
      },
    })),
    tagSet: tagSet(account, i.id),
  };
}

const TAGGABLE: ReadonlySet<string> = new Set(["image", "snapshot"]);

export const registerImage: Action = ({ account, params, endDryRun }) => {
  const name = params.need("Name");
  // Source: EC2 API reference, RegisterImage, Name.
  if (!/^[A-Za-z0-9()[\]./'@_ -]{3,128}$/.test(name))
    throw new ApiError(
      "InvalidAMIName.Malformed",
      `AMI name ${name} is invalid: 3 to 128 letters, digits and ()[] ./-'@_ are possible`,
    );
  const taken = account.images.find((i) => i.name === name && i.ownerId === account.ownerId);
  if (taken !== undefined)
    throw new ApiError("InvalidAMIName.Duplicate", `AMI name ${name} is already in use by AMI ${taken.id}`);
  if (params.text("ImageLocation") !== undefined) throw notImplemented("images in S3");
  const arch = params.text("Architecture") ?? "i386";
  if (arch !== "x86_64" && arch !== "arm64") throw notImplemented(`the architecture ${arch}`);
  const bootMode = params.text("BootMode") ?? (arch === "arm64" ? "uefi" : "legacy-bios");
  const tpm = params.text("TpmSupport");
  if (tpm !== undefined && bootMode !== "uefi")
    throw new ApiError("InvalidParameterCombination", "TpmSupport requires the boot mode uefi");
  if (params.text("VirtualizationType") !== "hvm") throw notImplemented("paravirtual images");
  for (const flag of ["EnaSupport"]) params.flag(flag);
  for (const text of ["ImdsSupport", "SriovNetSupport"]) params.text(text);
  const rootName = params.text("RootDeviceName");
  const devices = readDevices(account, params).map((d) => ({
    device: d.device,
    snapshotId: d.snapshotId ?? "",
    sizeGiB: d.sizeGiB ?? snapshotSize(account, d.snapshotId ?? ""),
    deleteOnTermination: d.deleteOnTermination ?? d.device === rootName,
  }));
  const root = devices.find((d) => d.device === rootName);
  if (root === undefined || root.snapshotId === "")
    throw new ApiError("InvalidBlockDeviceMapping", `the root device ${rootName} has no snapshot`);
  const tags = readTagSpecifications(params, TAGGABLE);
  const description = params.text("Description");
  endDryRun();
  const made: Image = {
    ...{ id: account.id("ami"), name, ownerId: account.ownerId, created: new Date(account.now()).toISOString() },
    ...{ arch, bootMode: bootMode as Image["bootMode"], state: "available", description, tpm: tpm !== undefined },
    devices: [root, ...devices.filter((d) => d !== root)],
  };
  account.images.push(made);
  account.otherTags.set(made.id, new Map(tags.get("image")));
  for (const { snapshotId } of devices)
    for (const [key, value] of tags.get("snapshot") ?? []) account.snapshots.all.get(snapshotId)?.tags.set(key, value);
  return { imageId: made.id };
};

export const deregisterImage: Action = async ({ account, params, endDryRun }) => {
  const id = params.need("ImageId");
  const withSnapshots = params.flag("DeleteAssociatedSnapshots") ?? false;
  const at = account.images.findIndex((i) => i.id === id);
  const image = account.images[at];
  if (image === undefined) throw new ApiError("InvalidAMIID.NotFound", `The image id '[${id}]' does not exist`);
  if (image.ownerId !== account.ownerId) throw new ApiError("AuthFailure", `Not authorized for image:${id}`);
  endDryRun();
  account.images.splice(at, 1);
  account.otherTags.delete(id);
  const results: XmlObject[] = [];
  for (const { snapshotId } of withSnapshots ? image.devices : []) {
    if (refuseSnapshotInUse(account, snapshotId) !== undefined) {
      results.push({ snapshotId, returnCode: "skipped" });
    } else {
      await account.snapshots.delete(snapshotId);
      results.push({ snapshotId, returnCode: "success" });
    }
  }
  return { return: true, deleteSnapshotResultSet: withSnapshots ? results : undefined };
};
