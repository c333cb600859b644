import { invalidParameter, missingParameter } from "../arm-error.ts";
import type { Body, Json } from "../body.ts";
import type { ChosenImage } from "./image-reference.ts";

export interface OsProfile {
  readonly computerName: string;
  readonly customData: string | undefined;
  /** Without password and custom data, which are never shown. */
  readonly shown: Readonly<Record<string, Json>>;
}

/** Source: learn.microsoft.com, OSProfile.adminUsername, "disallowed values" (part). */
const REFUSED_NAMES = new Set(
  "administrator admin user user1 test user2 test1 user3 admin1 1 123 a actuser adm admin2 aspnet backup console david guest john owner root server sql support sys test2 test3 user4 user5".split(
    " ",
  ),
);
const REFUSED_PASSWORDS = new Set([
  "abc@123",
  "P@$$w0rd",
  "P@ssw0rd",
  "P@ssword123",
  "Pa$$word",
  "pass@word1",
  "Password!",
  "Password1",
]);

/** Reads `osProfile`: asked for with a generalized image, refused with a specialized one. @throws ArmError */
export function readOsProfile(
  properties: Body,
  { image, vmName }: { readonly image: ChosenImage | undefined; readonly vmName: string },
): OsProfile | undefined {
  const needed = image?.facts.osState === "Generalized";
  if (!properties.has("osProfile")) {
    if (needed) throw missingParameter("osProfile");
    return undefined;
  }
  if (!needed) throw invalidParameter("osProfile", "Parameter 'osProfile' is not allowed.");
  const body = properties.child("osProfile");
  const computerName = body.text("computerName") ?? vmName;
  if (computerName.length > 64 || !/^[A-Za-z0-9]([A-Za-z0-9-.]*[A-Za-z0-9])?$/.test(computerName)) {
    const message =
      "Linux host name cannot exceed 64 characters in length or contain the following characters: ` ~ ! @ # $ % ^ & * ( ) = + _ [ ] { } \\ | ; : ' \" , < > / ?.";
    throw invalidParameter("computerName", message);
  }
  const adminUsername = body.text("adminUsername");
  if (adminUsername === undefined || adminUsername === "") throw missingParameter("adminUsername");
  if (REFUSED_NAMES.has(adminUsername.toLowerCase()) || adminUsername.length > 64) {
    const message =
      "The Admin Username specified is not allowed. For more information about disallowed usernames, see https://aka.ms/vmosprofile";
    throw invalidParameter("adminUsername", message);
  }
  const password = body.text("adminPassword");
  if (password !== undefined) checkPassword(password);
  const customData = body.text("customData");
  if (customData !== undefined && (customData.length > 87_380 || !/^[A-Za-z0-9+/]*={0,2}$/.test(customData))) {
    const message =
      "Custom data in OSProfile must be in Base64 encoded format and with a maximum length of 87380 characters.";
    throw invalidParameter("customData", message);
  }
  const linuxConfiguration = readLinux(body.child("linuxConfiguration"), { adminUsername, password });
  const secrets = body.items("secrets");
  if (secrets.length > 0)
    throw invalidParameter("secrets", "No key vault of this subscription has such a certificate.");
  const allowExtensionOperations = body.flag("allowExtensionOperations") ?? true;
  const signal = body.flag("requireGuestProvisionSignal");
  return {
    computerName,
    customData,
    shown: {
      ...{ computerName, adminUsername, linuxConfiguration, secrets: [], allowExtensionOperations },
      requireGuestProvisionSignal: signal ?? true,
    },
  };
}

function checkPassword(password: string): void {
  const kinds = [/[a-z]/, /[A-Z]/, /\d/, /[\W_]/].filter((k) => k.test(password)).length;
  if (password.length >= 6 && password.length <= 72 && kinds >= 3 && !REFUSED_PASSWORDS.has(password)) return;
  const message =
    "The supplied password must be between 6-72 characters long and must satisfy at least 3 of password complexity requirements from the following: 1) Contains an uppercase character 2) Contains a lowercase character 3) Contains a numeric digit 4) Contains a special character 5) Control characters are not allowed";
  throw invalidParameter("adminPassword", message);
}

function readLinux(
  body: Body,
  { adminUsername, password }: { readonly adminUsername: string; readonly password: string | undefined },
): Readonly<Record<string, Json>> {
  const disablePasswordAuthentication = body.flag("disablePasswordAuthentication") ?? false;
  const keys = body
    .child("ssh")
    .items("publicKeys")
    .map((key) => ({ path: key.need("path"), keyData: key.need("keyData") }));
  for (const { path, keyData } of keys) {
    const standard = `/home/${adminUsername}/.ssh/authorized_keys`;
    if (path !== standard) {
      const message = `Destination path for SSH public keys is currently limited to its default value ${standard} due to a known issue in Linux provisioning agent.`;
      throw invalidParameter("linuxConfiguration.ssh.publicKeys.path", message);
    }
    if (!goodKey(keyData)) {
      const message = "The value of parameter linuxConfiguration.ssh.publicKeys.keyData is invalid.";
      throw invalidParameter("linuxConfiguration.ssh.publicKeys.keyData", message);
    }
  }
  if (disablePasswordAuthentication && keys.length === 0) {
    const message =
      "Authentication using either SSH or by user name and password must be enabled in Linux profile. For more information, see https://aka.ms/vmsshkeys.";
    throw invalidParameter("linuxConfiguration", message);
  }
  if (!disablePasswordAuthentication && password === undefined) throw missingParameter("adminPassword");
  const patchSettings = body.keep("patchSettings");
  const platformUpdates = body.flag("enableVMAgentPlatformUpdates");
  return {
    disablePasswordAuthentication,
    ...(keys.length > 0 && { ssh: { publicKeys: keys } }),
    provisionVMAgent: body.flag("provisionVMAgent") ?? true,
    ...(patchSettings !== undefined && { patchSettings }),
    ...(platformUpdates !== undefined && { enableVMAgentPlatformUpdates: platformUpdates }),
  };
}

/** RSA of at least 2048 bits, or Ed25519. Source: learn.microsoft.com "SSH keys for Linux VMs", supported formats. */
function goodKey(keyData: string): boolean {
  const [kind, data] = keyData.trim().split(/\s+/);
  if (kind !== "ssh-rsa" && kind !== "ssh-ed25519") return false;
  const bytes = Buffer.from(data ?? "", "base64");
  const length = bytes.length > 4 ? bytes.readUInt32BE(0) : 0;
  if (bytes.subarray(4, 4 + length).toString() !== kind) return false;
  return kind === "ssh-ed25519" ? bytes.length === 51 : bytes.length >= 277;
}
