import { type Static, Type } from "typebox";
import { ACCESS_KEYS, PLACE_KEYS } from "../config.ts";

/** Where `kata-remote image publish azure` puts images. */
export const PublishConfig = Type.Object(
  {
    ...PLACE_KEYS,
    ...ACCESS_KEYS,
    gallery: Type.String({
      pattern: "^[A-Za-z0-9]([A-Za-z0-9_.]{0,78}[A-Za-z0-9])?$",
      default: "kata_remote",
      description: "Compute gallery in the resource group; made when it is not there",
    }),
    definition: Type.Optional(
      Type.String({
        pattern: "^[A-Za-z0-9]([A-Za-z0-9_.-]{0,78}[A-Za-z0-9])?$",
        description: "Image definition of which each publication is a version; else podvm-TEE-ARCH",
      }),
    ),
    osState: Type.Union([Type.Literal("specialised"), Type.Literal("generalised")], {
      default: "specialised",
      description: "generalised: VMs take an SSH key, and Azure waits for an agent in the guest to report",
    }),
    regions: Type.Array(Type.String({ pattern: "^[a-z0-9]+$" }), {
      default: [],
      description: "Locations that the image is copied to, besides its own",
    }),
    tags: Type.Record(Type.String({ minLength: 1, maxLength: 512 }), Type.String({ maxLength: 256 }), {
      default: {},
      description: "On all that is made",
    }),
    uploads: Type.Integer({ minimum: 1, maximum: 64, default: 8, description: "Parts that are sent at a time" }),
    attempts: Type.Integer({ minimum: 1, maximum: 10, default: 4, description: "Of one request" }),
    requestTimeoutMs: Type.Integer({ minimum: 100, default: 60_000 }),
    lookMs: Type.Integer({ minimum: 10, default: 5000, description: "Between two looks at what is being made" }),
  },
  { additionalProperties: false },
);
export type PublishConfig = Static<typeof PublishConfig>;
