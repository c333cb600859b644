import type {
  CommunityGalleryImage,
  CommunityGalleryImageVersion,
  Disk,
  GalleryImage,
  GalleryImageVersion,
  Image,
  ResourceSku,
  Usage,
  VirtualMachine,
  VirtualMachineImage,
} from "@azure/arm-compute";
import type { NetworkInterface, NetworkSecurityGroup, PublicIPAddress, Subnet } from "@azure/arm-network";
import type { Call } from "../../src/base/call.ts";
import { Fault } from "../../src/base/fault.ts";
import type { ArmRequests, OperationOptions } from "./arm-requests.ts";
import type { AzureSdk } from "./azure-sdk.ts";
import type { AzureConfig } from "./config.ts";
import { kindOf } from "./faults.ts";
import { nameOf, partOf } from "./names.ts";

const CONSOLE_URI_MINUTES = 5;

/** Begins a long-running operation and leaves it to Azure: what comes of it is seen by looking. */
interface Begun {
  submitted(): Promise<void>;
}

/**
 * The operations of Azure Resource Manager that the provider uses, in its resource group: each throws a Fault of
 * faults.ts, or the end of its call. Lists are complete or throw.
 */
export class ArmApi {
  readonly requests: ArmRequests;
  readonly #sdk: AzureSdk;
  readonly #config: AzureConfig;

  constructor(deps: { readonly sdk: AzureSdk; readonly requests: ArmRequests; readonly config: AzureConfig }) {
    this.requests = deps.requests;
    this.#sdk = deps.sdk;
    this.#config = deps.config;
  }

  /**
   * Asks for a VM that is not there yet. @throws Fault of kind `exists` when it is
   * @param admitted its share of the limits has been taken
   */
  async createVm(name: string, vm: VirtualMachine, call: Call, admitted = false): Promise<void> {
    const { compute } = this.#sdk;
    const begin = (options: OperationOptions): Begun =>
      compute.virtualMachines.createOrUpdate(this.#group, name, vm, { ...options, ifNoneMatch: "*" });
    try {
      await this.#begin("write", "create VM", begin, call, { instances: 1, admitted });
    } catch (e) {
      // It is something that the VM refers to that is not there.
      if (kindOf(e) !== "not-found" || !(e instanceof Fault)) throw e;
      const message = `${e.message}: what the configuration names is not there, see kata-remote check`;
      throw new Fault("failed_precondition", message, { ...e.context, kind: "setup" }, { cause: e.cause });
    }
  }

  /** With what it is doing. @returns undefined when there is none */
  getVm(name: string, call: Call): Promise<VirtualMachine | undefined> {
    return this.#find("read VM", call, (options) =>
      this.#sdk.compute.virtualMachines.get(this.#group, name, { ...options, expand: "instanceView" }),
    );
  }

  listVms(call: Call): Promise<readonly VirtualMachine[]> {
    return this.requests.all("list VMs", (o) => this.#sdk.compute.virtualMachines.list(this.#group, o), call);
  }

  /** @returns false when there is none */
  deleteVm(name: string, call: Call): Promise<boolean> {
    return this.#delete("delete VM", call, (options) =>
      this.#sdk.compute.virtualMachines.delete(this.#group, name, { ...options, forceDeletion: true }),
    );
  }

  async tagVm(name: string, tags: Record<string, string>, call: Call): Promise<void> {
    const begin = (options: OperationOptions): Begun =>
      this.#sdk.compute.virtualMachines.update(this.#group, name, { tags }, options);
    await this.#begin("write", "tag VM", begin, call);
  }

  /** Address of the serial console's log, which is valid for some minutes. */
  async consoleUri(name: string, call: Call): Promise<string | undefined> {
    const ask = (options: OperationOptions) =>
      this.#sdk.compute.virtualMachines.retrieveBootDiagnosticsData(this.#group, name, {
        ...options,
        sasUriExpirationTimeInMinutes: CONSOLE_URI_MINUTES,
      });
    return (await this.requests.send("write", "read boot diagnostics", ask, call)).value.serialConsoleLogBlobUri;
  }

  getNic(id: string, call: Call): Promise<NetworkInterface | undefined> {
    return this.#find("read network interface", call, (options) =>
      this.#sdk.network.networkInterfaces.get(partOf(id, "resourceGroups"), nameOf(id), options),
    );
  }

  listNics(call: Call): Promise<readonly NetworkInterface[]> {
    const list = (o: OperationOptions) => this.#sdk.network.networkInterfaces.list(this.#group, o);
    return this.requests.all("list network interfaces", list, call);
  }

  deleteNic(name: string, call: Call): Promise<boolean> {
    return this.#delete("delete network interface", call, (options) =>
      this.#sdk.network.networkInterfaces.delete(this.#group, name, options),
    );
  }

  listPublicIps(call: Call): Promise<readonly PublicIPAddress[]> {
    const list = (o: OperationOptions) => this.#sdk.network.publicIPAddresses.list(this.#group, o);
    return this.requests.all("list public addresses", list, call);
  }

  getPublicIp(id: string, call: Call): Promise<PublicIPAddress | undefined> {
    return this.#find("read public address", call, (options) =>
      this.#sdk.network.publicIPAddresses.get(partOf(id, "resourceGroups"), nameOf(id), options),
    );
  }

  deletePublicIp(name: string, call: Call): Promise<boolean> {
    return this.#delete("delete public address", call, (options) =>
      this.#sdk.network.publicIPAddresses.delete(this.#group, name, options),
    );
  }

  listDisks(call: Call): Promise<readonly Disk[]> {
    const list = (o: OperationOptions) => this.#sdk.compute.disks.listByResourceGroup(this.#group, o);
    return this.requests.all("list disks", list, call);
  }

  /** By its id, in whatever resource group. */
  getDisk(id: string, call: Call): Promise<Disk | undefined> {
    return this.#find("read disk", call, (options) =>
      this.#sdk.compute.disks.get(partOf(id, "resourceGroups"), nameOf(id), options),
    );
  }

  deleteDisk(name: string, call: Call): Promise<boolean> {
    return this.#delete("delete disk", call, (options) => this.#sdk.compute.disks.delete(this.#group, name, options));
  }

  /** VM sizes of the location, those included that this subscription may not use. */
  async listSizes(call: Call): Promise<readonly ResourceSku[]> {
    const filter = `location eq '${this.#config.location}'`;
    const list = (o: OperationOptions) => this.#sdk.compute.resourceSkus.list({ ...o, filter });
    const all = await this.requests.all("list sizes", list, call);
    return all.filter((sku) => sku.resourceType?.toLowerCase() === "virtualmachines");
  }

  listUsage(call: Call): Promise<readonly Usage[]> {
    const list = (o: OperationOptions) => this.#sdk.compute.usage.list(this.#config.location, o);
    return this.requests.all("list quotas", list, call);
  }

  getGalleryImage(group: string, gallery: string, image: string, call: Call): Promise<GalleryImage | undefined> {
    return this.#find("read gallery image", call, (options) =>
      this.#sdk.compute.galleryImages.get(group, gallery, image, options),
    );
  }

  listGalleryVersions(
    group: string,
    gallery: string,
    image: string,
    call: Call,
  ): Promise<readonly GalleryImageVersion[]> {
    const list = (o: OperationOptions) =>
      this.#sdk.compute.galleryImageVersions.listByGalleryImage(group, gallery, image, o);
    return this.requests.all("list gallery image versions", list, call);
  }

  getCommunityImage(gallery: string, image: string, call: Call): Promise<CommunityGalleryImage | undefined> {
    return this.#find("read community gallery image", call, (options) =>
      this.#sdk.compute.communityGalleryImages.get(this.#config.location, gallery, image, options),
    );
  }

  listCommunityVersions(gallery: string, image: string, call: Call): Promise<readonly CommunityGalleryImageVersion[]> {
    const list = (o: OperationOptions) =>
      this.#sdk.compute.communityGalleryImageVersions.list(this.#config.location, gallery, image, o);
    return this.requests.all("list community gallery image versions", list, call);
  }

  getManagedImage(group: string, image: string, call: Call): Promise<Image | undefined> {
    return this.#find("read image", call, (options) => this.#sdk.compute.images.get(group, image, options));
  }

  async listMarketplaceVersions(publisher: string, offer: string, sku: string, call: Call): Promise<readonly string[]> {
    const ask = (o: OperationOptions) =>
      this.#sdk.compute.virtualMachineImages.list(this.#config.location, publisher, offer, sku, o);
    return (await this.requests.send("read", "list marketplace images", ask, call)).value.map((v) => v.name);
  }

  getMarketplaceImage(
    publisher: string,
    offer: string,
    sku: string,
    version: string,
    call: Call,
  ): Promise<VirtualMachineImage | undefined> {
    return this.#find("read marketplace image", call, (options) =>
      this.#sdk.compute.virtualMachineImages.get(this.#config.location, publisher, offer, sku, version, options),
    );
  }

  getSubnet(id: string, call: Call): Promise<Subnet | undefined> {
    const [group, network] = [partOf(id, "resourceGroups"), partOf(id, "virtualNetworks")];
    return this.#find("read subnet", call, (options) =>
      this.#sdk.network.subnets.get(group, network, nameOf(id), options),
    );
  }

  getSecurityGroup(id: string, call: Call): Promise<NetworkSecurityGroup | undefined> {
    return this.#find("read security group", call, (options) =>
      this.#sdk.network.networkSecurityGroups.get(partOf(id, "resourceGroups"), nameOf(id), options),
    );
  }

  get #group(): string {
    return this.#config.resourceGroup;
  }

  async #find<T>(action: string, call: Call, ask: (options: OperationOptions) => Promise<T>): Promise<T | undefined> {
    try {
      return (await this.requests.send("read", action, ask, call)).value;
    } catch (e) {
      if (isMissing(e)) return undefined;
      throw e;
    }
  }

  async #begin(
    family: "write" | "delete",
    action: string,
    begin: (options: OperationOptions) => Begun,
    call: Call,
    more: { readonly instances?: number; readonly admitted?: boolean } = {},
  ) {
    return this.requests.send(family, action, (options) => begin(options).submitted(), call, more);
  }

  async #delete(action: string, call: Call, begin: (options: OperationOptions) => Begun): Promise<boolean> {
    try {
      const { answer } = await this.#begin("delete", action, begin, call);
      return answer.status !== 204;
    } catch (e) {
      if (isMissing(e)) return false;
      throw e;
    }
  }
}

/** That the resource is not there; a missing resource group or subscription is another matter. */
function isMissing(thrown: unknown): boolean {
  if (!(thrown instanceof Fault) || kindOf(thrown) === undefined) return false;
  const { status, azureCode } = thrown.context;
  if (azureCode === "ResourceGroupNotFound" || azureCode === "SubscriptionNotFound") return false;
  return status === 404 || kindOf(thrown) === "not-found";
}
