import type { Static } from "typebox";
import { realClock } from "../../../src/base/clock.ts";
import type { ImagePublisher, ProviderDeps, PublisherPlugin } from "../../../src/provider/index.ts";
import { PublishConfig } from "./config.ts";

/** Pod VM images as versions of an image in a compute gallery. */
export const azurePublisher: PublisherPlugin<typeof PublishConfig> = {
  configSchema: PublishConfig,
  formats: ["vhd"],
  permissions: [
    "Microsoft.Compute/disks/read",
    "Microsoft.Compute/disks/write",
    "Microsoft.Compute/disks/delete",
    "Microsoft.Compute/disks/beginGetAccess/action",
    "Microsoft.Compute/disks/endGetAccess/action",
    "Microsoft.Compute/galleries/read",
    "Microsoft.Compute/galleries/write",
    "Microsoft.Compute/galleries/delete",
    "Microsoft.Compute/galleries/images/read",
    "Microsoft.Compute/galleries/images/write",
    "Microsoft.Compute/galleries/images/delete",
    "Microsoft.Compute/galleries/images/versions/read",
    "Microsoft.Compute/galleries/images/versions/write",
    "Microsoft.Compute/galleries/images/versions/delete",
  ],
  open: openAzurePublisher,
};

async function openAzurePublisher(config: Static<typeof PublishConfig>, deps: ProviderDeps): Promise<ImagePublisher> {
  const [{ openSdk }, { ArmRequests }, { Headroom }, { ImagesApi }, { AzurePublisher }] = await Promise.all([
    import("../azure-sdk.ts"),
    import("../arm-requests.ts"),
    import("../headroom.ts"),
    import("./images-api.ts"),
    import("./azure-publisher.ts"),
  ]);
  const clock = deps.clock ?? realClock;
  const sdk = await openSdk(config);
  const requests = new ArmRequests({ config, clock, headroom: new Headroom(deps) });
  return new AzurePublisher({ api: new ImagesApi({ sdk, requests, config, clock }), config, ca: sdk.ca, ...deps });
}
