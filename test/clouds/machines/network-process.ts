import { createSocket } from "node:dgram";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { dhcpReply } from "./dhcp.ts";
import type { FromNetwork, Lease, ToNetwork } from "./network-messages.ts";

/**
 * Runs inside of a cloud network's namespace, which lives as long as this process: DHCP, and the metadata service's
 * TCP side. Everything that needs a decision is asked of the parent, whose end is ours.
 */
const MAX_BODY_BYTES = 1 << 20;
const waiting = new Map<number, (reply: (ToNetwork & { kind: "reply" })["reply"]) => void>();
let leases = new Map<string, Lease>();
let nextId = 1;

function tell(message: FromNetwork): void {
  if (process.connected) process.send?.(message);
}

async function serveDhcp(): Promise<void> {
  const socket = createSocket("udp4");
  socket.on("message", (message) => {
    const reply = dhcpReply(message, (mac) => leases.get(mac));
    // Broadcast: the client has no address yet that could be asked for.
    if (reply !== undefined) socket.send(reply, 68, "255.255.255.255");
  });
  socket.bind(67, "0.0.0.0");
  await once(socket, "listening");
  socket.setBroadcast(true);
}

async function serveMetadata(address: string): Promise<void> {
  const server = createServer((request, response) => {
    answer(address, request, response).catch(() => response.destroy()); // the caller is gone
  });
  server.listen(80, address);
  await once(server, "listening");
}

async function answer(destination: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request) {
    size += (chunk as Buffer).length;
    if (size > MAX_BODY_BYTES) return void response.writeHead(413).end();
    chunks.push(chunk as Buffer);
  }
  const id = nextId++;
  const { method = "", url: path = "/", headers } = request;
  const { promise, resolve } = Promise.withResolvers<(ToNetwork & { kind: "reply" })["reply"]>();
  waiting.set(id, resolve);
  const source = request.socket.remoteAddress ?? "";
  const body = Buffer.concat(chunks).toString("base64");
  tell({ kind: "request", id, source, destination, method, path, headers, body });
  const reply = await promise;
  if (reply === undefined) return void response.destroy();
  const content = Buffer.from(reply.body, "base64");
  response.writeHead(reply.status, { "content-length": content.length, ...reply.headers }).end(content);
}

process.on("message", (message: ToNetwork) => {
  if (message.kind === "leases") leases = new Map(message.leases.map((l) => [l.mac, l]));
  if (message.kind === "reply") {
    waiting.get(message.id)?.(message.reply);
    waiting.delete(message.id);
  }
  if (message.kind === "serve") {
    Promise.all([serveDhcp(), ...message.addresses.map(serveMetadata)]).then(
      () => tell({ kind: "ready" }),
      (e: unknown) => {
        console.error(e);
        process.exit(1);
      },
    );
  }
});
process.on("disconnect", () => process.exit());
tell({ kind: "ready" });
