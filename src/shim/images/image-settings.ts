import { readFile } from "node:fs/promises";
import { Fault } from "../../base/fault.ts";
import type { ImageSettings } from "../../guestwire/index.ts";
import type { ImagesConfig } from "./images-config.ts";

/**
 * What a guest is told of registries and logins: the node's file, then the pod's own pull secrets.
 * @param podAuthJson `{"auths": …}` of the pod's pull secrets, "" when it has none; undefined: they are not known now, and
 * the guest keeps the logins that it has
 * @throws Fault invalid_argument naming the file that cannot be used
 */
export async function imageSettings(config: ImagesConfig, podAuthJson: string | undefined): Promise<ImageSettings> {
  const { authFile, caFile, nameservers, stallMs, attempts, pullTimeoutMs } = config;
  const registries = await Promise.all(
    Object.entries(config.registries).map(async ([host, { caFile: own, ...rest }]) => [
      host,
      { ...rest, ...(own === undefined ? {} : { caPem: await pem(own, `shim.images.registries."${host}".caFile`) }) },
    ]),
  );
  const node = authFile === undefined ? {} : authsOf(await text(authFile, "shim.images.authFile"), authFile);
  const pod = podAuthJson ? authsOf(podAuthJson, "the pod's pull secrets") : {};
  return {
    ...(podAuthJson === undefined ? {} : { auths: { ...node, ...pod } }),
    registries: Object.fromEntries(registries) as NonNullable<ImageSettings["registries"]>,
    ...(caFile === undefined ? {} : { caPem: await pem(caFile, "shim.images.caFile") }),
    ...(nameservers.length === 0 ? {} : { nameservers }),
    ...{ stallMs, attempts, pullTimeoutMs },
  };
}

async function pem(path: string, key: string): Promise<string> {
  const content = await text(path, key);
  if (content.includes("-----BEGIN CERTIFICATE-----")) return content;
  throw new Fault("invalid_argument", `${key} = "${path}" has no certificate in PEM`);
}

async function text(path: string, key: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    throw new Fault(
      "invalid_argument",
      `${key} = "${path}" cannot be read; correct it in the node's configuration`,
      {},
      { cause },
    );
  }
}

function authsOf(json: string, origin: string): NonNullable<ImageSettings["auths"]> {
  let document: { readonly auths?: unknown } | null;
  try {
    document = JSON.parse(json) as typeof document;
  } catch {
    // Without the cause: its message quotes what it read.
    throw new Fault("invalid_argument", `${origin} is not JSON as docker's config.json is`);
  }
  const auths = document?.auths ?? {};
  if (typeof auths !== "object") throw new Fault("invalid_argument", `${origin}: "auths" is not a table of registries`);
  return auths as NonNullable<ImageSettings["auths"]>;
}
