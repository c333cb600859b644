import type { Call } from "../../src/base/call.ts";
import { Fault } from "../../src/base/fault.ts";
import type { Finding } from "../../src/provider/index.ts";
import type { AzureConfig } from "./config.ts";
import { failed } from "./finding.ts";
import { verifyCapacity } from "./verify-capacity.ts";
import type { VerifyDeps } from "./verify-deps.ts";
import { verifyNetwork } from "./verify-network.ts";
import { verifyPermissions } from "./verify-permissions.ts";

/** What provider azure needs of the account. Reads only: nothing is made. */
export async function verifyAccount(deps: VerifyDeps, call: Call): Promise<readonly Finding[]> {
  const credentials = await credentialsFinding(deps, call);
  // Everything else would fail for the same reason.
  if (credentials.state === "error") return [credentials];
  const findings = await Promise.all([
    verifyPermissions(deps, call),
    imageFinding(deps, call),
    verifyCapacity(deps, call),
    verifyNetwork(deps, call),
  ]);
  return [credentials, ...findings.flat(), ...securityFindings(deps.config)];
}

async function credentialsFinding({ sdk, config }: VerifyDeps, call: Call): Promise<Finding> {
  const subject = "credentials";
  try {
    const token = await sdk.credential.getToken(sdk.scope, { abortSignal: call.signal });
    if (token === null) throw new Fault("permission_denied", "there are none");
    return { subject, state: "ok", detail: `${whose(token.token)}, subscription ${config.subscriptionId}` };
  } catch (e) {
    const remedy =
      "give the adaptor's pod workload identity or its node a managed identity, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET";
    return { subject, state: "error", detail: Fault.from(e).fullMessage, remedy };
  }
}

/** Who a token is for: it is shown, nothing is decided by it. */
function whose(token: string): string {
  try {
    const claims = JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString()) as Record<
      string,
      unknown
    >;
    return `application ${String(claims.appid ?? claims.azp)}, object ${String(claims.oid)}`;
  } catch {
    return "a token of unknown form"; // it is for Azure to read
  }
}

async function imageFinding({ launcher, config }: VerifyDeps, call: Call): Promise<Finding[]> {
  const subject = "pod VM image";
  try {
    const { name, reference, specialised, gen2, security, diskGiB, arch } = await launcher.images.resolve(
      undefined,
      call,
    );
    const version = reference.id ?? reference.communityGalleryImageId ?? `${name} ${reference.version}`;
    const is = `${arch}, generation ${gen2 ? 2 : 1}, ${security.type}, ${specialised ? "specialised" : "generalised"}`;
    const found: Finding[] = [{ subject, state: "ok", detail: `${version}: ${is}, ${diskGiB} GiB` }];
    if (!specialised) {
      const detail =
        "it is generalised: Azure waits for an agent in the guest to report, and says after 20 minutes that it failed";
      found.push({
        subject,
        state: "warning",
        detail,
        remedy: "publish it specialised, as kata-remote image publish does",
      });
    }
    if (config.rootDiskGiB !== undefined && config.rootDiskGiB < diskGiB) {
      const detail = `rootDiskGiB ${config.rootDiskGiB} is less than the image's ${diskGiB}, which is used`;
      found.push({ subject, state: "warning", detail, remedy: "correct providers.azure.rootDiskGiB" });
    }
    return found;
  } catch (e) {
    return [failed(subject, e, "correct providers.azure.image; kata-remote image publish azure makes one")];
  }
}

function securityFindings(config: AzureConfig): Finding[] {
  const found: Finding[] = [];
  if (!config.bootDiagnostics) {
    const detail = "off: guests are known by their address alone, and what a VM says before it fails is lost";
    const remedy = "set providers.azure.bootDiagnostics to true";
    found.push({ subject: "serial console", state: "warning", detail, remedy });
  }
  if (config.identity !== undefined) {
    const detail = `pods can get tokens of ${config.identity} from the metadata service, which Azure cannot confine`;
    const remedy = "leave out providers.azure.identity unless pods need it";
    found.push({ subject: "instance metadata", state: "warning", detail, remedy });
  }
  if (config.publicIp) {
    const detail = "VMs have public addresses";
    found.push({
      subject: "public addresses",
      state: "warning",
      detail,
      remedy: "set providers.azure.publicIp to false",
    });
  }
  return found;
}
