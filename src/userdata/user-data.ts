import { Fault } from "../base/fault.ts";

/** What a guest of the reference image is told at boot. The same for every VM of a cluster, and no secret. */
export interface UserData {
  /** Certificate of the cluster CA: whoever dials the guest must show a certificate that it signed. */
  readonly caPem: string;
}

/** Where the document puts the CA; it is also what the guest looks for. */
export const CA_PATH = "/run/kata-remote/ca.pem";

const HEADER = "#cloud-config";
/** Smallest limit among the clouds, bytes (EC2: 16 KiB before base64). */
const MAX_BYTES = 16 * 1024;

/** The cloud-config document, so that an image with cloud-init would do the same thing with it. */
export function renderUserData(data: UserData): Uint8Array {
  const lines = data.caPem.trimEnd().split("\n");
  const text = [
    HEADER,
    "write_files:",
    `  - path: ${CA_PATH}`,
    '    permissions: "0644"',
    "    content: |",
    ...lines.map((line) => `      ${line}`),
    "",
  ].join("\n");
  return Buffer.from(text, "utf8");
}

/**
 * Reads the document back.
 * @throws Fault invalid_argument saying what is wrong with it
 */
export async function parseUserData(text: string): Promise<UserData> {
  if (Buffer.byteLength(text) > MAX_BYTES) throw invalid(`it is longer than ${MAX_BYTES} bytes`);
  if (text.split(/\r?\n/, 1)[0] !== HEADER) throw invalid(`its first line is not ${HEADER}`);
  const caPem = fixedForm(text) ?? (await anyForm(text));
  if (!/^-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+-----END CERTIFICATE-----\n$/.test(caPem)) {
    throw invalid(`${CA_PATH} is not one PEM certificate`);
  }
  return { caPem };
}

/** What renderUserData writes, without a YAML parser: loading one costs a guest a tenth of its boot under emulation. */
function fixedForm(text: string): string | undefined {
  const form =
    /^#cloud-config\nwrite_files:\n {2}- path: (\S+)\n {4}permissions: "0644"\n {4}content: \|\n((?: {6}[^\n]+\n)+)$/;
  const found = form.exec(text);
  if (found?.[1] !== CA_PATH) return undefined;
  return found[2]?.replaceAll(/^ {6}/gm, "");
}

/** Any other cloud-config: made by hand, or changed by a cloud on its way. */
async function anyForm(text: string): Promise<string> {
  const { writtenFiles } = await import("./writefiles/index.ts");
  const files = writtenFiles(text, (path) => path === CA_PATH);
  if (!files.has(CA_PATH)) throw invalid(`write_files has no ${CA_PATH}`);
  const content = files.get(CA_PATH);
  if (content === undefined) throw invalid(`${CA_PATH} has no content`);
  return `${content.replaceAll("\r\n", "\n").trimEnd()}\n`;
}

function invalid(problem: string): Fault {
  return new Fault("invalid_argument", `user-data cannot be used: ${problem}`);
}
