/** Which cloud's hardware a machine looks like: firmware strings (SMBIOS) and the bus of its disks. */
export type Platform = "ec2" | "azure";

export interface MetadataRequest {
  /** IPv4 of the caller, as the cloud sees it. */
  readonly source: string;
  /** The machine that has this address; undefined = somebody else in the network. */
  readonly machineId: string | undefined;
  /** Which of the metadata addresses was called. */
  readonly destination: string;
  readonly method: string;
  /** With its query string. */
  readonly path: string;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Buffer;
}

export interface MetadataReply {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array;
}

/** The cloud's metadata service. @returns undefined = the connection is closed without an answer */
export type MetadataHandler = (
  request: MetadataRequest,
) => Promise<MetadataReply | undefined> | MetadataReply | undefined;

/** A subnet of the cloud's private network. Its first address is the router. */
export interface SubnetSpec {
  readonly id: string;
  /** IPv4 `network/length`, inside of the network's. */
  readonly cidr: string;
}

export interface MachineHostOptions {
  /** Directory in which everything of the machines lives; is made, and removed again with the host. */
  readonly folder: string;
  /** IPv4 `network/length` that this host has no route for, see freeNetwork(). Its last 4 addresses belong to the test host. */
  readonly cidr: string;
  readonly subnets: readonly SubnetSpec[];
  /** Packet size, bytes; 9001 in EC2's networks, 1500 in Azure's. */
  readonly mtu: number;
  readonly metadata: MetadataHandler;
  /** Addresses of the metadata service, TCP port 80; 169.254.169.254 unless given. */
  readonly metadataAddresses?: readonly string[];
  /** `tcg` unless given: /dev/kvm may hang; acceleration() finds out. */
  readonly acceleration?: "kvm" | "tcg";
}

/** A disk of a machine. */
export interface DiskSpec {
  /** Unique in the machine; the guest sees it as the disk's serial number (without "-", as EC2 shows volumes). */
  readonly id: string;
  /** Raw image below a copy-on-write overlay; undefined = an empty disk. */
  readonly image?: string | undefined;
  /** Size, GiB; undefined = the image's. */
  readonly sizeGiB?: number | undefined;
  /** At Azure: of a data disk. */
  readonly lun?: number | undefined;
  /** File (qcow2) that holds its content and outlives the machine; is made when it is not there. */
  readonly kept?: string | undefined;
}

/** A network interface. The guest gets address, router and packet size by DHCP. */
export interface NicSpec {
  readonly id: string;
  /** IPv4 in one of the subnets. */
  readonly address: string;
  /** IP TTL of what the metadata service answers to this address; undefined = the usual 64. */
  readonly metadataHopLimit?: number | undefined;
}

export interface MachineSpec {
  readonly id: string;
  readonly platform: Platform;
  /** The cloud's name for the size, e.g. "m6a.large": the firmware tells the guest. */
  readonly model?: string | undefined;
  readonly vcpus: number;
  readonly memoryMiB: number;
  /** Boot disk first: UEFI firmware starts what its EFI system partition has. */
  readonly disks: readonly DiskSpec[];
  /** Primary first. */
  readonly nics: readonly NicSpec[];
}

/**
 * How a machine's run ended. `stopped`: by stop() or remove(); `powered-off`: the guest did it itself (a reboot
 * is none: the machine goes on); `crashed`: QEMU ended with an error, `detail` says which.
 */
export interface MachineEnd {
  readonly how: "stopped" | "powered-off" | "crashed";
  readonly detail: string;
}

/** A virtual machine as a cloud has it. Its disks live until remove(). */
export interface Machine {
  readonly spec: MachineSpec;
  readonly state: "running" | "stopped";
  /** Settles when the current run is over; never rejects. */
  readonly ended: Promise<MachineEnd>;
  /** Serial console since the first start, newest `maxBytes`. */
  console(maxBytes?: number): Promise<string>;
  /** Power on, with the disks as they are. Does nothing when it runs. */
  start(): Promise<void>;
  /** Pulls the plug. Does nothing when it is stopped. */
  stop(): Promise<void>;
  /** Hot-plugs a disk. Its content goes with the machine. */
  attachDisk(disk: DiskSpec): Promise<void>;
  /** Hot-unplugs it and deletes its content; waits until the guest has let it go, for as long as `timeoutMs`. */
  detachDisk(id: string, timeoutMs?: number): Promise<void>;
  /** Stops it and deletes all of it. Repeatable. */
  remove(): Promise<void>;
}
