import { type Static, Type } from "typebox";

const RESOURCE = "^/subscriptions/[^/]+/resourceGroups/[^/]+/providers/";
/** A full ARM resource id of the given type. */
const resourceId = (type: string, description?: string) =>
  Type.String({ pattern: `${RESOURCE}${type}$`, ...(description === undefined ? {} : { description }) });

const SUBNET = "Microsoft\\.Network/virtualNetworks/[^/]+/subnets/[^/]+";
const NSG = "Microsoft\\.Network/networkSecurityGroups/[^/]+";
const ENCRYPTION_SET = "Microsoft\\.Compute/diskEncryptionSets/[^/]+";
const IDENTITY = "Microsoft\\.ManagedIdentity/userAssignedIdentities/[^/]+";
const PROXIMITY_GROUP = "Microsoft\\.Compute/proximityPlacementGroups/[^/]+";
const HOST_GROUP = "Microsoft\\.Compute/hostGroups/[^/]+";
const RESERVATION_GROUP = "Microsoft\\.Compute/capacityReservationGroups/[^/]+";

const network = {
  subnets: Type.Array(resourceId(SUBNET), { minItems: 1, description: "Tried in this order" }),
  securityGroup: Type.Optional(resourceId(NSG, "Lets TCP 15150 in from the nodes; else the subnet's own")),
  extraSubnets: Type.Array(resourceId(SUBNET), {
    default: [],
    description: "One more network interface in each of them, for a network that pods reach through their VM",
  }),
  acceleratedNetworking: Type.Optional(
    Type.Boolean({ description: "Left to Azure unless said; not every size has it" }),
  ),
  publicIp: Type.Boolean({
    default: false,
    description: "Gives VMs a public address, which nodes then use. Never needed inside of one network",
  }),
};

const machine = {
  image: Type.String({
    minLength: 3,
    description:
      "Resource id of a gallery image, of a version of one, or of a managed image; /CommunityGalleries/GALLERY/Images/NAME[/Versions/N]; publisher:offer:sku:version. Without a version the newest",
  }),
  images: Type.Array(Type.String({ minLength: 3 }), {
    default: [],
    description: "Images that a pod may choose besides the default one",
  }),
  size: Type.String({
    pattern: "^[A-Za-z0-9_-]+$",
    default: "Standard_DC2as_v5",
    description: "Of a pod that says neither type nor size",
  }),
  sizes: Type.Array(Type.String({ minLength: 2 }), {
    default: [],
    description: "Sizes that may be used besides it; * is a wildcard. The smallest that fits is tried first",
  }),
  arch: Type.Union([Type.Literal("x64"), Type.Literal("arm64")], { default: "x64" }),
  tee: Type.Union([Type.Literal("any"), Type.Literal("sev-snp"), Type.Literal("tdx"), Type.Literal("none")], {
    default: "any",
    description: "Which confidential VMs: of either kind, of one, or none. Sizes without it are not used",
  }),
  trustedLaunch: Type.Boolean({ default: true, description: 'Of a VM with tee "none"; the image must be one for it' }),
  vTpm: Type.Boolean({ default: true }),
  secureBoot: Type.Boolean({ default: false, description: "The image's boot chain must be signed for it" }),
  zones: Type.Array(Type.String({ pattern: "^[1-9]$" }), {
    default: [],
    description: "Tried in this order where the size is offered; empty leaves the place to Azure",
  }),
  market: Type.Union([Type.Literal("regular"), Type.Literal("spot"), Type.Literal("spot-then-regular")], {
    default: "regular",
  }),
  spotMaxPrice: Type.Optional(
    Type.Number({ exclusiveMinimum: 0, description: "USD per hour; else the regular price" }),
  ),
  proximityGroup: Type.Optional(resourceId(PROXIMITY_GROUP)),
  hostGroup: Type.Optional(resourceId(HOST_GROUP)),
  capacityReservationGroup: Type.Optional(resourceId(RESERVATION_GROUP)),
  identity: Type.Optional(
    resourceId(IDENTITY, "The VM's own managed identity; pods can use it through the metadata service"),
  ),
  sshUser: Type.String({ pattern: "^[a-z_][a-z0-9_-]{0,31}$", default: "peerpod" }),
  sshPublicKey: Type.Optional(
    Type.String({
      pattern: "^(ssh-rsa|ssh-ed25519) [A-Za-z0-9+/=]+( .*)?$",
      description: "Only with a generalised image. Without it a key is sent whose private half nobody has",
    }),
  ),
  bootDiagnostics: Type.Boolean({
    default: true,
    description: "The serial console: for the check of a guest's key, and for what a VM said before it failed",
  }),
  tags: Type.Record(Type.String({ minLength: 1, maxLength: 512 }), Type.String({ maxLength: 256 }), { default: {} }),
};

const DISK_TYPES = [
  Type.Literal("StandardSSD_LRS"),
  Type.Literal("Premium_LRS"),
  Type.Literal("Standard_LRS"),
  Type.Literal("StandardSSD_ZRS"),
  Type.Literal("Premium_ZRS"),
] as const;

const disks = {
  rootDiskGiB: Type.Optional(Type.Integer({ minimum: 1, maximum: 4095, description: "At least the image's size" })),
  rootDiskType: Type.Union([...DISK_TYPES], { default: "StandardSSD_LRS" }),
  encryption: Type.Union([Type.Literal("guest-state"), Type.Literal("disk"), Type.Literal("none")], {
    default: "guest-state",
    description:
      "Of a confidential VM. guest-state: VMGuestStateOnly; disk: DiskWithVMGuestState, the image must be one for it; none: NonPersistedTPM",
  }),
  diskEncryptionSet: Type.Optional(resourceId(ENCRYPTION_SET, "Customer's key in place of the platform's")),
  encryptionAtHost: Type.Boolean({ default: false, description: "The subscription must have the feature" }),
  dataDisksGiB: Type.Array(Type.Integer({ minimum: 1, maximum: 65_536 }), {
    default: [],
    maxItems: 32,
    description: "Empty volumes that come and go with each VM, at LUN 0, 1, …",
  }),
  dataDiskType: Type.Union([...DISK_TYPES], { default: "StandardSSD_LRS" }),
};

/** How Azure is reached, for publishing images too. */
export const ACCESS_KEYS = {
  credential: Type.Union(
    [
      Type.Literal("chain"),
      Type.Literal("environment"),
      Type.Literal("workload-identity"),
      Type.Literal("managed-identity"),
    ],
    { default: "chain", description: "chain: the first of the three that there is" },
  ),
  managedIdentityClientId: Type.Optional(Type.String({ minLength: 1 })),
  cloud: Type.Union([Type.Literal("public"), Type.Literal("us-government"), Type.Literal("china")], {
    default: "public",
  }),
  endpoint: Type.Optional(Type.String({ pattern: "^https://", description: "Of Azure Resource Manager, for tests" })),
  authorityHost: Type.Optional(Type.String({ pattern: "^https://", description: "Of Microsoft Entra ID, for tests" })),
  caFile: Type.Optional(
    Type.String({ minLength: 1, description: "CA certificates (PEM) in place of the well-known ones" }),
  ),
};

/** Where all that is made is made. */
export const PLACE_KEYS = {
  subscriptionId: Type.String({ pattern: "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$" }),
  resourceGroup: Type.String({
    pattern: "^[-\\w.()]{0,89}[-\\w()]$",
    description: "All that is made is made here. One of its own keeps listings short",
  }),
  location: Type.String({ pattern: "^[a-z0-9]+$", description: 'As in "westeurope"' }),
};

const requests = {
  prices: Type.Union([Type.Literal("table"), Type.Literal("retail-api"), Type.Literal("off")], {
    default: "table",
    description:
      "What the check shows. table: a list that is shipped, of the usual sizes; retail-api: asks prices.azure.com, without credentials",
  }),
  maxCandidates: Type.Integer({
    minimum: 1,
    maximum: 100,
    default: 12,
    description: "How many places are tried before a start fails for want of capacity",
  }),
  attempts: Type.Integer({
    minimum: 1,
    maximum: 10,
    default: 4,
    description: "Of one request that is throttled or not answered",
  }),
  requestTimeoutMs: Type.Integer({ minimum: 100, default: 30_000 }),
  coalesceMs: Type.Integer({
    minimum: 0,
    maximum: 5000,
    default: 50,
    description: "Questions about single VMs are gathered this long",
  }),
  pollMs: Type.Integer({
    minimum: 10,
    maximum: 60_000,
    default: 2000,
    description: "A VM that is being made is looked at this often",
  }),
  deletePollMs: Type.Integer({
    minimum: 10,
    maximum: 60_000,
    default: 5000,
    description: "A VM that is being deleted is looked at this often at first",
  }),
  settleMs: Type.Integer({
    minimum: 0,
    maximum: 120_000,
    default: 10_000,
    description: "So long a create waits for Azure to find room, so that the next place can be tried",
  }),
};

/** Configuration of provider azure, `[providers.azure]`. */
export const AzureConfig = Type.Object(
  {
    ...PLACE_KEYS,
    ...network,
    ...machine,
    ...disks,
    ...ACCESS_KEYS,
    ...requests,
  },
  { additionalProperties: false },
);
export type AzureConfig = Static<typeof AzureConfig>;
