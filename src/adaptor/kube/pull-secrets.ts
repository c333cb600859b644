import { type Call, withDeadline } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { Logger } from "../../base/log.ts";
import { type PullSecret, renderAuthJson } from "../../userdata/index.ts";
import type { PullSecretLookup } from "../podvm/index.ts";
import type { KubeReader } from "./kube-reader.ts";

interface Reference {
  readonly name?: string;
}
interface Pod {
  readonly spec?: { readonly serviceAccountName?: string; readonly imagePullSecrets?: readonly Reference[] };
}
interface ServiceAccount {
  readonly imagePullSecrets?: readonly Reference[];
}
interface Secret {
  readonly type?: string;
  readonly data?: Readonly<Record<string, string>>;
}

/** A pod does not wait longer for its secrets, ms. */
const LOOKUP_MS = 10_000;
const KEYS = [".dockerconfigjson", ".dockercfg"] as const;
/** Source: Kubernetes' rules for names and namespaces; they become part of a path. */
const NAME = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/;

/**
 * Finds a pod's image pull secrets: its service account's, then its own. A secret that is not there is left out. When the
 * cluster cannot be asked the pod starts without, as under the stock worker, and the log says so.
 * Source: wire contract §3.5
 */
export function pullSecretLookup(deps: {
  readonly reader: Pick<KubeReader, "get">;
  readonly log: Logger;
}): PullSecretLookup {
  return async ({ namespace, name }) => {
    if (!NAME.test(namespace) || !NAME.test(name)) return undefined; // not a pod of a cluster
    let secrets: readonly PullSecret[];
    try {
      secrets = await find(deps.reader, namespace, name, withDeadline(LOOKUP_MS));
    } catch (err) {
      deps.log.warn({ pod: `${namespace}/${name}`, err }, "pull secrets cannot be read: the pod VM gets none");
      return undefined;
    }
    return renderAuthJson(secrets);
  };
}

async function find(
  reader: Pick<KubeReader, "get">,
  namespace: string,
  name: string,
  call: Call,
): Promise<readonly PullSecret[]> {
  const base = `/api/v1/namespaces/${namespace}`;
  const pod = await reader.get<Pod>(`${base}/pods/${name}`, call);
  if (pod === undefined) throw new Fault("not_found", `there is no pod ${namespace}/${name}`);
  const account = await reader.get<ServiceAccount>(
    `${base}/serviceaccounts/${pod.spec?.serviceAccountName ?? "default"}`,
    call,
  );
  const names = [...(account?.imagePullSecrets ?? []), ...(pod.spec?.imagePullSecrets ?? [])]
    .map((reference) => reference.name ?? "")
    .filter((secret) => NAME.test(secret));
  const found = await Promise.all(names.map((secret) => reader.get<Secret>(`${base}/secrets/${secret}`, call)));
  return found.flatMap((secret, at) => {
    const key = KEYS.find((k) => secret?.data?.[k] !== undefined);
    if (key === undefined) return [];
    const content = Buffer.from(secret?.data?.[key] ?? "", "base64").toString("utf8");
    return [{ name: names[at] ?? "", type: `kubernetes.io/${key.slice(1)}`, content }];
  });
}
