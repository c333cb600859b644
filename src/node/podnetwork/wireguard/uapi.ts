import type { Call } from "../../../base/call.ts";
import { dialUnix } from "../../../base/dial-unix.ts";
import { Fault } from "../../../base/fault.ts";
import { ended } from "../../../base/retry.ts";
import type { WireguardKey, WireguardPeer } from "../../../podnetwork/index.ts";

/**
 * WireGuard's configuration protocol as wireguard-go serves it on a unix socket: lines of key=value, an empty one at the
 * end. Source: https://www.wireguard.com/xplatform/
 */
export function setRequest(device: {
  readonly privateKey?: WireguardKey;
  /** Absent: as they are. */
  readonly peers?: readonly WireguardPeer[];
}): string {
  const lines = ["set=1"];
  if (device.privateKey !== undefined) lines.push(`private_key=${hex(device.privateKey)}`);
  if (device.peers !== undefined) lines.push("replace_peers=true");
  for (const { publicKey, endpoint, allowedAddress, keepAliveSeconds } of device.peers ?? []) {
    lines.push(`public_key=${hex(publicKey)}`);
    if (endpoint !== undefined) lines.push(`endpoint=${socketText(endpoint)}`);
    if (keepAliveSeconds !== undefined) lines.push(`persistent_keepalive_interval=${keepAliveSeconds}`);
    lines.push("replace_allowed_ips=true", `allowed_ip=${allowedAddress}/${allowedAddress.includes(":") ? 128 : 32}`);
  }
  return `${lines.join("\n")}\n\n`;
}

export const GET_REQUEST = "get=1\n\n";

/** What a get answered, as far as it matters. @throws Fault internal when it is an error */
export function readGet(answer: string): { readonly privateKey?: WireguardKey; readonly listenPort: number } {
  const values = new Map(
    answer.split("\n").map((line): [string, string] => {
      const at = line.indexOf("=");
      return [line.slice(0, at), line.slice(at + 1)];
    }),
  );
  check(values.get("errno"));
  const key = values.get("private_key");
  const listenPort = Number(values.get("listen_port") ?? 0);
  return key === undefined ? { listenPort } : { privateKey: Buffer.from(key, "hex").toString("base64"), listenPort };
}

/** @throws Fault internal unless the answer says that it was done */
export function checkSet(answer: string): void {
  check(/^errno=(-?\d+)$/m.exec(answer)?.[1]);
}

/** One request and its answer. @throws Fault unavailable when nobody serves the socket; as the call ends */
export async function askUapi(socketPath: string, request: string, call: Call): Promise<string> {
  const socket = await dialUnix(socketPath, call);
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const onAbort = (): void => reject(ended(call));
  call.signal.addEventListener("abort", onAbort, { once: true });
  let answer = "";
  socket.setEncoding("utf8");
  socket.on("data", (data: string) => {
    answer += data;
    if (answer.endsWith("\n\n")) resolve(answer);
  });
  const cut = (cause?: Error): void =>
    reject(new Fault("unavailable", `${socketPath} was closed before it answered`, {}, { cause }));
  socket.on("error", cut).on("close", () => cut());
  socket.write(request);
  try {
    return await promise;
  } finally {
    call.signal.removeEventListener("abort", onAbort);
    socket.destroy();
  }
}

function check(errno: string | undefined): void {
  if (errno !== "0") throw new Fault("internal", `wireguard-go refused a setting: errno ${errno ?? "missing"}`);
}

/** Base64 to lower-case hexadecimal. */
function hex(key: WireguardKey): string {
  return Buffer.from(key, "base64").toString("hex");
}

function socketText({ address, port }: { readonly address: string; readonly port: number }): string {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}
