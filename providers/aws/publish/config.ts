import { type Static, Type } from "typebox";

/** Where `kata-remote image publish aws` puts images. */
export const PublishConfig = Type.Object(
  {
    region: Type.String({ pattern: "^[a-z]{2}(-[a-z]+)+-[0-9]$" }),
    tags: Type.Record(Type.String({ minLength: 1, maxLength: 127 }), Type.String({ maxLength: 255 }), {
      default: {},
      description: "Also put on the image and its snapshot",
    }),
    endpoint: Type.Optional(Type.String({ pattern: "^https?://", description: "In place of EC2's own, for tests" })),
    ebsEndpoint: Type.Optional(
      Type.String({ pattern: "^https?://", description: "In place of the EBS direct APIs'; else as endpoint" }),
    ),
    volumeGiB: Type.Integer({
      minimum: 1,
      maximum: 16_384,
      default: 10,
      description: "Root disk of VMs that do not say otherwise. The image's own is smaller, it grows when a VM boots",
    }),
    tpm: Type.Boolean({ default: true, description: "VMs have a NitroTPM; x86_64 only" }),
    snapshotKmsKeyArn: Type.Optional(
      Type.String({ pattern: "^arn:", description: "Encrypts the snapshot with this key; else as the account says" }),
    ),
    uploads: Type.Integer({ minimum: 1, maximum: 64, default: 16, description: "Blocks that are sent at a time" }),
    attempts: Type.Integer({ minimum: 1, maximum: 10, default: 6, description: "Of one request" }),
    requestTimeoutMs: Type.Integer({ minimum: 100, default: 30_000 }),
    pollMs: Type.Integer({ minimum: 10, default: 3000, description: "Between two looks at a snapshot or an image" }),
  },
  { additionalProperties: false },
);
export type PublishConfig = Static<typeof PublishConfig>;
