import type { Lease } from "./network-messages.ts";

const [DISCOVER, OFFER, REQUEST, ACK, NAK, INFORM] = [1, 2, 3, 5, 6, 8] as const;
const MAGIC = 0x63825363;
const LEASE_SECONDS = 3600;

/**
 * The answer to a DHCP message, for clients that have a lease waiting; others are not answered.
 * Source: RFC 2131, RFC 2132 (options 1, 3, 26, 50, 51, 53, 54).
 */
export function dhcpReply(message: Buffer, leaseOf: (mac: string) => Lease | undefined): Buffer | undefined {
  if (message.length < 240 || message[0] !== 1 || message.readUInt32BE(236) !== MAGIC) return undefined;
  const lease = leaseOf([...message.subarray(28, 34)].map((b) => b.toString(16).padStart(2, "0")).join(":"));
  if (lease === undefined) return undefined;
  const options = readOptions(message.subarray(240));
  const asked = options.get(53)?.[0];
  const address = bytesOf(lease.address);
  const wanted = options.get(50) ?? message.subarray(12, 16);
  const server = options.get(54);
  const router = bytesOf(lease.router);
  if (server !== undefined && !server.equals(router)) return undefined; // the client chose another server
  const kind =
    asked === DISCOVER ? OFFER : asked === REQUEST ? (wanted.equals(address) ? ACK : NAK) : asked === INFORM ? ACK : 0;
  if (kind === 0) return undefined;
  const reply = Buffer.alloc(240);
  message.copy(reply, 0, 0, 12); // hardware type, transaction id, flags
  reply[0] = 2;
  if (kind !== NAK) address.copy(reply, 16);
  router.copy(reply, 20);
  message.copy(reply, 28, 28, 44);
  reply.writeUInt32BE(MAGIC, 236);
  const number = (value: number, bytes: 2 | 4): Buffer => {
    const buffer = Buffer.alloc(bytes);
    buffer.writeUIntBE(value, 0, bytes);
    return buffer;
  };
  const given: [number, Buffer][] = [
    [53, Buffer.from([kind])],
    [54, router],
  ];
  if (kind !== NAK) {
    given.push([51, number(LEASE_SECONDS, 4)], [1, number(2 ** 32 - 2 ** (32 - lease.prefixLength), 4)]);
    given.push([3, router], [26, number(lease.mtu, 2)]);
  }
  const encoded = given.map(([code, value]) => Buffer.concat([Buffer.from([code, value.length]), value]));
  const whole = Buffer.concat([reply, ...encoded, Buffer.from([255])]);
  // Some clients drop what is shorter than BOOTP's 300 bytes.
  return Buffer.concat([whole, Buffer.alloc(Math.max(0, 300 - whole.length))]);
}

function readOptions(data: Buffer): Map<number, Buffer> {
  const options = new Map<number, Buffer>();
  for (let at = 0; at < data.length && data[at] !== 255; ) {
    const code = data[at] ?? 0;
    const length = code === 0 ? 0 : (data[at + 1] ?? 0);
    if (code !== 0) options.set(code, data.subarray(at + 2, at + 2 + length));
    at += code === 0 ? 1 : 2 + length;
  }
  return options;
}

function bytesOf(address: string): Buffer {
  return Buffer.from(address.split(".").map(Number));
}
