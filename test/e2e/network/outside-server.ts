// A part of the network that is not the cluster's: a web server that says who asks, and a name server. Ends with its
// standard input. Arguments: port of the web server; names with addresses as JSON.
// Prints a line for each question: {"from", "name", "type"}.
import { createSocket, type RemoteInfo } from "node:dgram";
import { createServer } from "node:http";
import { addressBytes } from "../../../src/base/address.ts";

const DNS_PORT = 53;
const [port = "80", json = "{}"] = process.argv.slice(2);
const names = JSON.parse(json) as Record<string, { readonly A?: string; readonly AAAA?: string }>;
/** Source: RFC 1035 §3.2.2, RFC 3596 §2.1. */
const TYPES: Readonly<Record<number, "A" | "AAAA">> = { 1: "A", 28: "AAAA" };
const NXDOMAIN = 3;
const TTL_S = 30;

/** At sockets for both families IPv4 addresses look like this. */
const plain = (address = ""): string => address.replace(/^::ffff:/, "");

createServer((request, response) => response.end(`outside sees ${plain(request.socket.remoteAddress)}\n`)).listen(
  Number(port),
  "::",
);

const dns = createSocket({ type: "udp6", ipv6Only: false });
dns.on("message", (question, from) => {
  const answer = answerTo(question, from);
  dns.send(answer, from.port, from.address);
});
dns.bind(DNS_PORT, "::", () => console.log("ready"));
process.stdin.resume().on("end", () => process.exit());

/** One question, one answer or none. Source: RFC 1035 §4.1. */
function answerTo(message: Buffer, from: RemoteInfo): Buffer {
  const labels: string[] = [];
  let at = 12;
  for (let length = message[at] ?? 0; length > 0; length = message[at] ?? 0) {
    labels.push(message.toString("latin1", at + 1, at + 1 + length));
    at += 1 + length;
  }
  const end = at + 5;
  const name = labels.join(".").toLowerCase();
  const type = TYPES[message.readUInt16BE(at + 1)];
  console.log(JSON.stringify({ from: plain(from.address), name, type }));
  const known = names[name];
  const address = type === undefined ? undefined : known?.[type];
  const header = Buffer.alloc(12);
  message.copy(header, 0, 0, 2);
  header.writeUInt16BE(0x8180 | (known === undefined ? NXDOMAIN : 0), 2);
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(address === undefined ? 0 : 1, 6);
  const parts = [header, message.subarray(12, end)];
  if (address !== undefined) {
    const data = addressBytes(address);
    const record = Buffer.alloc(12);
    record.writeUInt16BE(0xc00c, 0); // the name of the question
    message.copy(record, 2, at + 1, at + 5); // its type and class
    record.writeUInt32BE(TTL_S, 6);
    record.writeUInt16BE(data.length, 10);
    parts.push(record, data);
  }
  return Buffer.concat(parts);
}
