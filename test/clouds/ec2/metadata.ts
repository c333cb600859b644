import { randomBytes } from "node:crypto";
import { type MetadataReply, type MetadataRequest, macOf } from "../machines/index.ts";
import type { Ec2Account } from "./account.ts";
import type { StoredInstance } from "./instance.ts";

const TOKEN_PATH = "/latest/api/token";
const TTL = "x-aws-ec2-metadata-token-ttl-seconds";
const MAX_TTL_SECONDS = 21_600;

interface Token {
  readonly instanceId: string;
  readonly expires: number;
}

/**
 * EC2's instance metadata service, both versions, for the instances of an account.
 * Source: EC2 user guide, "Use the Instance Metadata Service to access instance metadata", "How IMDSv2 works"
 */
export class MetadataService {
  readonly #account: Ec2Account;
  readonly #tokens = new Map<string, Token>();
  /** Answered requests, oldest first: `instance METHOD path status`. */
  readonly requests: string[] = [];

  constructor(account: Ec2Account) {
    this.#account = account;
  }

  answer(request: MetadataRequest): MetadataReply | undefined {
    const instance = this.#account.instances.get(request.machineId ?? "");
    // Who is no instance reaches no metadata service at all.
    if (instance === undefined) return undefined;
    const reply = this.#answer(request, instance);
    this.requests.push(`${instance.id} ${request.method} ${request.path} ${reply.status}`);
    return { ...reply, headers: { server: "EC2ws", "content-type": "text/plain", ...reply.headers } };
  }

  #answer({ method, path, headers }: MetadataRequest, instance: StoredInstance): MetadataReply {
    if (instance.metadata.endpoint === "disabled") return failed(403, "Forbidden");
    if (path === TOKEN_PATH) return this.#token(method, headers, instance);
    if (method !== "GET" && method !== "HEAD") return failed(405, "Method Not Allowed");
    const token = headers["x-aws-ec2-metadata-token"];
    const needed = instance.metadata.tokens === "required" || token !== undefined;
    if (needed && !this.#valid(String(token ?? ""), instance)) return failed(401, "Unauthorized");
    const body = this.#read(path, instance);
    return body === undefined ? failed(404, "Not Found") : { status: 200, body };
  }

  #token(method: string, headers: MetadataRequest["headers"], instance: StoredInstance): MetadataReply {
    if (method !== "PUT") return { ...failed(405, "Method Not Allowed"), headers: { allow: "OPTIONS, PUT" } };
    // What came through a proxy gets none: that is what IMDSv2 is for.
    if (headers["x-forwarded-for"] !== undefined) return failed(403, "Forbidden");
    const ttl = String(headers[TTL] ?? "");
    if (!/^\d{1,5}$/.test(ttl) || Number(ttl) < 1 || Number(ttl) > MAX_TTL_SECONDS) return failed(400, "Bad Request");
    const token = `${randomBytes(40).toString("base64url")}==`;
    this.#tokens.set(token, { instanceId: instance.id, expires: this.#account.now() + Number(ttl) * 1000 });
    return { status: 200, headers: { [TTL]: ttl }, body: token };
  }

  #valid(text: string, instance: StoredInstance): boolean {
    const token = this.#tokens.get(text);
    return token !== undefined && token.instanceId === instance.id && token.expires > this.#account.now();
  }

  /** @returns undefined when there is no such thing */
  #read(path: string, i: StoredInstance): string | Buffer | undefined {
    // Dated versions of the interface are the same ones here.
    const found = /^\/(?:latest|20\d\d-\d\d-\d\d)(\/.*)?$/.exec(path.split("?")[0] ?? "");
    if (found === null) return path === "/" ? "2021-07-15\nlatest" : undefined;
    const rest = found[1] ?? "/";
    if (rest === "/") return `dynamic\nmeta-data${i.userData.length === 0 ? "" : "\nuser-data"}`;
    if (rest === "/user-data" || rest === "/user-data/") return i.userData.length === 0 ? undefined : i.userData;
    if (rest === "/dynamic/instance-identity/document") return identityDocument(this.#account, i);
    const [, key] = /^\/meta-data\/?(.*)$/.exec(rest) ?? [];
    return key === undefined ? undefined : readTree(metadataOf(this.#account, i), key);
  }
}

/** Every value by its path; directories follow from them. */
function metadataOf(account: Ec2Account, i: StoredInstance): ReadonlyMap<string, string> {
  const { networkInterface: nic } = i;
  const host = `ip-${nic.address.replaceAll(".", "-")}.${account.region}.compute.internal`;
  const entries: Record<string, string> = {
    ...{ "ami-id": i.imageId, "ami-launch-index": "0", hostname: host, "instance-action": "none", "instance-id": i.id },
    ...{ "instance-life-cycle": i.spot ? "spot" : "on-demand", "instance-type": i.type.name, "local-hostname": host },
    ...{ "local-ipv4": nic.address, mac: macOf("ec2", nic.address), "reservation-id": i.reservationId },
    ...{ "placement/availability-zone": i.subnet.zone, "placement/region": account.region },
    ...{ "security-groups": i.groups.join("\n"), "services/domain": "amazonaws.com", "services/partition": "aws" },
    ...(nic.publicAddress === undefined ? {} : { "public-ipv4": nic.publicAddress }),
    ...(i.keyName === undefined ? {} : { "public-keys/": `0=${i.keyName}` }),
  };
  for (const n of [nic, ...i.moreInterfaces]) {
    const at = `network/interfaces/macs/${macOf("ec2", n.address)}`;
    Object.assign(entries, {
      [`${at}/device-number`]: String(n.deviceIndex),
      [`${at}/interface-id`]: n.id,
      [`${at}/local-ipv4s`]: n.address,
      [`${at}/mac`]: macOf("ec2", n.address),
      [`${at}/subnet-id`]: n.subnet.id,
      [`${at}/subnet-ipv4-cidr-block`]: `${n.subnet.prefix}.0/24`,
    });
  }
  if (i.metadata.tags === "enabled") for (const [key, value] of i.tags) entries[`tags/instance/${key}`] = value;
  return new Map(Object.entries(entries));
}

function readTree(tree: ReadonlyMap<string, string>, key: string): string | undefined {
  const value = tree.get(key);
  if (value !== undefined) return value;
  const folder = key === "" || key.endsWith("/") ? key : `${key}/`;
  const inside = [...tree.keys()].filter((k) => k.startsWith(folder)).map((k) => k.slice(folder.length));
  if (inside.length === 0) return undefined;
  return [...new Set(inside.map((k) => (k.includes("/") ? k.slice(0, k.indexOf("/") + 1) : k)))].sort().join("\n");
}

function identityDocument(account: Ec2Account, i: StoredInstance): string {
  return JSON.stringify({
    ...{ accountId: account.ownerId, architecture: i.type.arch, availabilityZone: i.subnet.zone, imageId: i.imageId },
    ...{ instanceId: i.id, instanceType: i.type.name, pendingTime: new Date(i.launchedAt).toISOString() },
    ...{ privateIp: i.networkInterface.address, region: account.region, version: "2017-09-30" },
  });
}

function failed(status: number, text: string): MetadataReply {
  const body = `<?xml version="1.0" encoding="iso-8859-1"?>\n<html><head><title>${status} - ${text}</title></head><body><h1>${status} - ${text}</h1></body></html>\n`;
  return { status, headers: { "content-type": "text/html" }, body };
}
