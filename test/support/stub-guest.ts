import { createHash, randomUUID } from "node:crypto";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { createServer, type Server, type TLSSocket } from "node:tls";
import { AgentServiceDefinition } from "../../src/gen/agent/agent.ts";
import { HealthCheckResponse_ServingStatus, HealthDefinition } from "../../src/gen/agent/health.ts";
import { GuestDefinition } from "../../src/gen/kataremote/guest/v1/guest.ts";
import { makeCsr, makeSelfSigned, newKeyPair } from "../../src/identity/index.ts";
import { REQUEST_KEY, STREAM_OFFSET, TREE_ALPN } from "../../src/relay/index.ts";
import { Code, type ServerCall, StatusError, TtrpcServer } from "../../src/ttrpc/index.ts";

/** One tree as the stub received it. */
export interface ReceivedTree {
  readonly treeId: string;
  readonly tar: Buffer;
}

/**
 * The far end of an agent tunnel, as small as it can be: enrolment, health, one process per container whose output is
 * given and whose input is kept, trees kept as bytes. It repeats what it answered when a request key comes again.
 */
export class StubGuest {
  readonly keyPem = newKeyPair().keyPem;
  readonly trees = new Map<string, Buffer>();
  readonly stdin: Buffer[] = [];
  readonly configured: string[] = [];
  /** Calls by method that were carried out, repeats of one request left out. */
  readonly done = new Map<string, number>();
  /** Every call by method, repeats included. */
  readonly seen = new Map<string, number>();
  /** What ReadStdout and ReadStderr give. */
  output: { stdout: Buffer; stderr: Buffer } = { stdout: Buffer.alloc(0), stderr: Buffer.alloc(0) };
  /** Most that one read gives. */
  chunkBytes = 1 << 20;
  stdinClosed = false;
  /** Resolved by a test: its process ends with that code. */
  readonly exit = Promise.withResolvers<number>();
  /** Awaited before StartContainer is answered. */
  beforeStarted: () => Promise<void> = async () => {};
  serving = true;
  /** Called for every frame of a tree. */
  onTreeFrame: (() => void) | undefined;
  /** Says no to every tree. */
  treeError: { readonly code: string; readonly message: string } | undefined;
  readonly #server: Server;
  readonly #ttrpc = new TtrpcServer();
  readonly #answers = new Map<string, Promise<Uint8Array>>();
  readonly #sockets = new Set<TLSSocket>();
  readonly #caPem: string;
  #stdinBytes = 0;
  #port = 0;
  /** Asked before each ReadStdout is answered: lets a test hold a read back. */
  beforeRead: (() => Promise<void>) | undefined;

  private constructor(caPem: string) {
    this.#caPem = caPem;
    this.#server = createServer({
      key: this.keyPem,
      cert: makeSelfSigned(this.keyPem, "guest"),
      ca: caPem,
      requestCert: true,
      rejectUnauthorized: true,
      minVersion: "TLSv1.3",
      ALPNProtocols: [TREE_ALPN],
      sessionIdContext: "guest",
    });
    this.#serveGuest();
    this.#serveAgent();
    this.#server.on("secureConnection", (socket) => {
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
      socket.on("error", () => undefined); // tests cut connections
      if (socket.alpnProtocol === TREE_ALPN)
        this.#receiveTree(socket).catch(() => socket.destroy()); // cut off, or the sender gave up
      else this.#ttrpc.accept(socket);
    });
    this.#server.on("tlsClientError", () => undefined); // dial attempts that lost the race
  }

  static async start(caPem: string, port = 0): Promise<StubGuest> {
    const guest = new StubGuest(caPem);
    guest.#server.listen(port, "127.0.0.1");
    await once(guest.#server, "listening");
    guest.#port = (guest.#server.address() as AddressInfo).port;
    return guest;
  }

  get port(): number {
    return this.#port;
  }

  /** Repeatable. */
  async close(): Promise<void> {
    if (!this.#server.listening) return;
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
    await once(this.#server, "close");
  }

  #serveGuest(): void {
    this.#ttrpc.addService(GuestDefinition, {
      enroll: async () => {
        if (this.configured.length > 0) throw new StatusError(Code.failedPrecondition, "configured already");
        return { csrPem: makeCsr(this.keyPem, "guest") };
      },
      configure: async ({ sandboxId, certificatePem }) => {
        if (this.configured.length > 0 && this.configured[0] !== sandboxId) {
          throw new StatusError(Code.failedPrecondition, `configured for ${this.configured[0]}`);
        }
        this.configured.push(sandboxId);
        this.#server.setSecureContext({
          key: this.keyPem,
          cert: certificatePem,
          ca: this.#caPem,
          minVersion: "TLSv1.3",
        });
        return { tunnelKey: "" };
      },
      info: async () => ({
        bootId: randomUUID(),
        kernelRelease: "6.1.0-stub",
        guestVersion: "0",
        listeningMs: 1234n,
        memoryTotalBytes: 0n,
        memoryAvailableBytes: 0n,
        guestProcessRssBytes: 0n,
        diskTotalBytes: 0n,
        diskAvailableBytes: 0n,
      }),
      statTree: async ({ treeId }) => ({ present: this.trees.has(treeId) }),
    });
    this.#ttrpc.addService(HealthDefinition, {
      check: async () => ({
        status: this.serving
          ? HealthCheckResponse_ServingStatus.SERVING
          : HealthCheckResponse_ServingStatus.NOT_SERVING,
      }),
    });
  }

  #serveAgent(): void {
    const agent = AgentServiceDefinition.methods;
    const raw = (
      method: { readonly name: string },
      answer: (payload: Uint8Array, call: ServerCall) => Promise<Uint8Array>,
      remember: boolean,
    ): void => {
      this.#ttrpc.addHandler(AgentServiceDefinition.fullName, method.name, (payload, call) => {
        count(this.seen, method.name);
        const key = value(call, REQUEST_KEY);
        const known = remember && key !== undefined ? this.#answers.get(key) : undefined;
        if (known !== undefined) return known;
        count(this.done, method.name);
        const reply = answer(payload, call);
        if (remember && key !== undefined) this.#answers.set(key, reply);
        return reply;
      });
    };
    for (const stream of ["stdout", "stderr"] as const) {
      const method = stream === "stdout" ? agent.readStdout : agent.readStderr;
      const read = async (payload: Uint8Array, call: ServerCall): Promise<Uint8Array> => {
        await this.beforeRead?.();
        const { len } = method.requestType.decode(payload);
        const offset = Number(value(call, STREAM_OFFSET));
        const data = this.output[stream].subarray(offset, offset + Math.min(len, this.chunkBytes));
        return method.responseType.encode({ data }).finish();
      };
      raw(method, read, false);
    }
    raw(
      agent.writeStdin,
      async (payload, call) => {
        const { data } = agent.writeStdin.requestType.decode(payload);
        const offset = Number(value(call, STREAM_OFFSET));
        if (offset > this.#stdinBytes)
          throw new StatusError(Code.dataLoss, `gap at ${this.#stdinBytes}, got ${offset}`);
        const fresh = data.subarray(this.#stdinBytes - offset);
        this.stdin.push(Buffer.from(fresh));
        this.#stdinBytes += fresh.length;
        return agent.writeStdin.responseType.encode({ len: data.length }).finish();
      },
      true,
    );
    raw(
      agent.closeStdin,
      async () => {
        this.stdinClosed = true;
        return new Uint8Array();
      },
      true,
    );
    raw(
      agent.startContainer,
      async () => {
        await this.beforeStarted();
        return new Uint8Array();
      },
      true,
    );
    // Blocks, as a container that runs does; the reply comes with the process's end.
    raw(
      agent.waitProcess,
      async () => agent.waitProcess.responseType.encode({ status: await this.exit.promise }).finish(),
      true,
    );
    raw(
      agent.getGuestDetails,
      async (_payload, call) => {
        throw new StatusError(Code.notFound, `deadline ${Math.round(call.timeoutMs ?? -1)}`, [
          {
            typeUrl: "type.test/detail",
            value: Buffer.from(JSON.stringify(call.metadata.filter(([key]) => key.startsWith("x-")))),
          },
        ]);
      },
      false,
    );
  }

  async #receiveTree(socket: TLSSocket): Promise<void> {
    const input = new ByteReader(socket);
    const { treeId } = JSON.parse((await input.take(await input.u32())).toString()) as { treeId: string };
    if (this.treeError !== undefined) return answer(socket, { ok: false, ...this.treeError });
    const parts: Buffer[] = [];
    for (let length = await input.u32(); length > 0; length = await input.u32()) {
      parts.push(await input.take(length));
      this.onTreeFrame?.();
    }
    const tar = Buffer.concat(parts);
    const sha256 = createHash("sha256").update(tar).digest();
    if (!sha256.equals(await input.take(32)))
      return answer(socket, { ok: false, code: "aborted", message: "checksum" });
    this.trees.set(treeId, tar);
    answer(socket, { ok: true, bytes: tar.length, sha256: sha256.toString("hex") });
  }
}

function answer(socket: TLSSocket, reply: object): void {
  const text = Buffer.from(JSON.stringify(reply));
  const length = Buffer.alloc(4);
  length.writeUInt32BE(text.length);
  socket.end(Buffer.concat([length, text]));
}

function count(table: Map<string, number>, key: string): void {
  table.set(key, (table.get(key) ?? 0) + 1);
}

function value(call: ServerCall, key: string): string | undefined {
  return call.metadata.find(([name]) => name === key)?.[1];
}

class ByteReader {
  readonly #chunks: AsyncIterator<Buffer>;
  #data = Buffer.alloc(0);

  constructor(socket: TLSSocket) {
    this.#chunks = (socket as AsyncIterable<Buffer>)[Symbol.asyncIterator]();
  }

  async take(length: number): Promise<Buffer> {
    while (this.#data.length < length) {
      const next = await this.#chunks.next();
      if (next.done === true) throw new Error("connection ended");
      this.#data = Buffer.concat([this.#data, next.value]);
    }
    const taken = this.#data.subarray(0, length);
    this.#data = this.#data.subarray(length);
    return taken;
  }

  async u32(): Promise<number> {
    return (await this.take(4)).readUInt32BE(0);
  }
}
