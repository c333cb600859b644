import { Fault } from "../base/fault.ts";
import { type GuestDisks, NO_DISKS, parseGuestDisks } from "./guest-disks.ts";

/** What a guest of the reference image is told at boot. The same for every VM of a class, and no secret. */
export interface UserData {
  /** Certificate of the cluster CA: whoever dials the guest must show a certificate that it signed. */
  readonly caPem: string;
  /** Of its disks besides the first. */
  readonly disks: GuestDisks;
}

/** Where the document puts the CA; it is also what the guest looks for. */
export const CA_PATH = "/run/kata-remote/ca.pem";
/** Only there when the VM has such disks. */
const DISKS_PATH = "/run/kata-remote/disks.json";

const HEADER = "#cloud-config";
/** Smallest limit among the clouds, bytes (EC2: 16 KiB before base64). */
const MAX_BYTES = 16 * 1024;

/** The cloud-config document, so that an image with cloud-init would do the same thing with it. */
export function renderUserData({ caPem, disks }: Partial<UserData> & Pick<UserData, "caPem">): Uint8Array {
  const ca = file(CA_PATH, caPem.trimEnd());
  const more = disks === undefined || !(disks.scratch || disks.volumes.length > 0) ? [] : [JSON.stringify(disks)];
  const text = [HEADER, "write_files:", ...ca, ...more.flatMap((json) => file(DISKS_PATH, json)), ""].join("\n");
  return Buffer.from(text, "utf8");
}

function file(path: string, content: string): string[] {
  return [
    `  - path: ${path}`,
    '    permissions: "0644"',
    "    content: |",
    ...content.split("\n").map((line) => `      ${line}`),
  ];
}

/**
 * Reads the document back.
 * @throws Fault invalid_argument saying what is wrong with it
 */
export async function parseUserData(text: string): Promise<UserData> {
  if (Buffer.byteLength(text) > MAX_BYTES) throw invalid(`it is longer than ${MAX_BYTES} bytes`);
  if (text.split(/\r?\n/, 1)[0] !== HEADER) throw invalid(`its first line is not ${HEADER}`);
  const files = fixedForm(text) ?? (await anyForm(text));
  if (!files.has(CA_PATH)) throw invalid(`write_files has no ${CA_PATH}`);
  const ca = files.get(CA_PATH);
  if (ca === undefined) throw invalid(`${CA_PATH} has no content`);
  const caPem = `${ca.replaceAll("\r\n", "\n").trimEnd()}\n`;
  if (!/^-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+-----END CERTIFICATE-----\n$/.test(caPem)) {
    throw invalid(`${CA_PATH} is not one PEM certificate`);
  }
  const disks = files.get(DISKS_PATH);
  return { caPem, disks: disks === undefined ? NO_DISKS : parseGuestDisks(disks) };
}

/** What renderUserData writes, without a YAML parser: loading one costs a guest a tenth of its boot under emulation. */
function fixedForm(text: string): ReadonlyMap<string, string> | undefined {
  const entry = / {2}- path: (\S+)\n {4}permissions: "0644"\n {4}content: \|\n((?: {6}[^\n]+\n)+)/g;
  const files = new Map<string, string>();
  const rest = text.replace(entry, (_all, path: string, content: string) => {
    files.set(path, content.replaceAll(/^ {6}/gm, ""));
    return "";
  });
  return rest === `${HEADER}\nwrite_files:\n` ? files : undefined;
}

/** Any other cloud-config: made by hand, or changed by a cloud on its way. */
async function anyForm(text: string): Promise<ReadonlyMap<string, string | undefined>> {
  const { writtenFiles } = await import("./writefiles/index.ts");
  return writtenFiles(text, (path) => path === CA_PATH || path === DISKS_PATH);
}

function invalid(problem: string): Fault {
  return new Fault("invalid_argument", `user-data cannot be used: ${problem}`);
}
