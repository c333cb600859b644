import { readFileSync } from "node:fs";
import { Fault } from "../../base/fault.ts";
import { readSeed } from "./seed.ts";

/** Where user-data may come from. */
export type UserDataSource = "cidata" | "aws" | "azure";

const ALL: readonly UserDataSource[] = ["cidata", "aws", "azure"];

/** What a machine says of itself. */
export interface MachineFacts {
  /** The kernel's command line. */
  readonly cmdline: string;
  /** SMBIOS type 1, manufacturer; "" without SMBIOS. */
  readonly vendor: string;
  /** SMBIOS type 3, asset tag. */
  readonly assetTag: string;
}

/** On the kernel's command line: names of sources, separated by commas. It wins over what the machine looks like. */
export const USER_DATA_PARAM = "kata-remote.user-data";
const AWS_VENDOR = "Amazon EC2";
/** Of Azure's machines, and no other of Hyper-V's. Source: cloud-init and Azure's own agent. */
const AZURE_ASSET_TAG = "7783-7084-3265-9085-8269-3286-77";

/**
 * Sources to be tried on a machine, all at once.
 * @throws Fault invalid_argument when the command line names one that there is not
 */
export function userDataSources(facts: MachineFacts): readonly UserDataSource[] {
  const given = facts.cmdline.split(/\s+/).findLast((p) => p.startsWith(`${USER_DATA_PARAM}=`));
  if (given !== undefined) {
    return given
      .slice(USER_DATA_PARAM.length + 1)
      .split(",")
      .map((name) => {
        const source = ALL.find((s) => s === name);
        if (source === undefined)
          throw new Fault("invalid_argument", `${USER_DATA_PARAM} names "${name}": ${ALL.join(", ")} are possible`);
        return source;
      });
  }
  if (facts.vendor === AWS_VENDOR) return ["aws"];
  if (facts.assetTag === AZURE_ASSET_TAG) return ["azure"];
  return ALL;
}

/** Reads what this machine says of itself. */
export function machineFacts(root = ""): MachineFacts {
  const read = (path: string): string => {
    try {
      return readFileSync(`${root}${path}`, "utf8").trim();
    } catch {
      return ""; // a machine without SMBIOS
    }
  };
  return {
    cmdline: read("/proc/cmdline"),
    vendor: read("/sys/class/dmi/id/sys_vendor"),
    assetTag: read("/sys/class/dmi/id/chassis_asset_tag"),
  };
}

/** Reads user-data from one source; gives up when the signal ends. */
export type ReadUserData = (source: UserDataSource, signal: AbortSignal) => Promise<string>;

/**
 * User-data of the first source that has any.
 * @throws Fault of the only source, else not_found with what each of them said
 */
export async function readUserData(
  sources: readonly UserDataSource[],
  read: ReadUserData = readFrom,
): Promise<{ readonly text: string; readonly source: UserDataSource }> {
  const others = new AbortController();
  try {
    return await Promise.any(sources.map(async (source) => ({ source, text: await read(source, others.signal) })));
  } catch (e) {
    const faults = (e as AggregateError).errors.map((error: unknown) => Fault.from(error));
    const [only] = faults;
    if (only !== undefined && faults.length === 1) throw only;
    throw new Fault("not_found", `no user-data: ${faults.map((f) => f.fullMessage).join("; ")}`);
  } finally {
    others.abort();
  }
}

/** The clouds' code, and Node's HTTP with it, is not loaded for a local VM. */
async function readFrom(source: UserDataSource, signal: AbortSignal): Promise<string> {
  if (source === "cidata") return await readSeed({ signal });
  const { awsUserData, azureUserData } = await import("./metadata-service.ts");
  return await (source === "aws" ? awsUserData : azureUserData)({ signal });
}
