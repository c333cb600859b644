import { type Static, Type } from "typebox";

const closed = { additionalProperties: false } as const;

const RegistryConfig = Type.Object(
  {
    mirrors: Type.Optional(
      Type.Array(Type.String({ pattern: "^https?://" }), {
        description: "Base URLs that are asked first, in order. They are not trusted: everything is checked by digest",
      }),
    ),
    caFile: Type.Optional(
      Type.String({ minLength: 1, description: "The only CAs that this registry is trusted with" }),
    ),
    plainHttp: Type.Optional(Type.Boolean({ description: "Without TLS" })),
    skipVerify: Type.Optional(Type.Boolean({ description: "Takes any certificate" })),
  },
  closed,
);

/** How pod VMs pull their images. Files are read anew for each container. */
export const ImagesConfig = Type.Object(
  {
    authFile: Type.Optional(
      Type.String({
        minLength: 1,
        description:
          "Logins for every pod of this node, as docker's config.json has them (kubelet's is /var/lib/kubelet/config.json)",
      }),
    ),
    caFile: Type.Optional(
      Type.String({ minLength: 1, description: "CAs that are trusted beside the public ones, PEM" }),
    ),
    registries: Type.Record(Type.String({ minLength: 1 }), RegistryConfig, {
      default: {},
      description: 'By host, such as "registry.example.com:5000"',
    }),
    nameservers: Type.Array(Type.String({ pattern: "^[0-9a-fA-F.:\\[\\]]+$" }), {
      default: [],
      description:
        'Whom pod VMs ask for registries\' addresses. Default: whom DHCP names; provider local with network "tap" names nobody',
    }),
    stallMs: Type.Integer({
      minimum: 1_000,
      default: 30_000,
      description: "A registry that sends nothing for so long is asked again, from where it stopped, ms",
    }),
    attempts: Type.Integer({
      minimum: 1,
      maximum: 100,
      default: 5,
      description: "How often in a row without progress",
    }),
    pullTimeoutMs: Type.Integer({
      minimum: 1_000,
      default: 1_200_000,
      description: "Budget of one pull, ms; CreateContainer waits for it",
    }),
  },
  closed,
);
export type ImagesConfig = Static<typeof ImagesConfig>;
