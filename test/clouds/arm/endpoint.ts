import { mkdtemp, rm } from "node:fs/promises";
import { createServer as createPlainServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestCertificates, testCertificates } from "./certificates.ts";
import { ArmService, type EndpointOptions } from "./service.ts";
import type { WireReply, WireRequest } from "./wire.ts";

/** Azure as an unmodified client sees it, on this machine: HTTPS with a certificate of the tests' own authority. */
export class ArmEndpoint extends ArmService implements AsyncDisposable {
  readonly certificates: TestCertificates;
  /** Whether every request to Resource Manager arrives twice; the client gets the second answer. */
  repeats = false;
  /** Told of each request to Resource Manager as soon as its answer is on its way to the client. */
  onAnswer: (method: string, path: string) => void = () => undefined;
  readonly #server: Server;
  readonly #metadata: Server;
  readonly #folder: string;

  private constructor(options: EndpointOptions, certificates: TestCertificates) {
    super(options);
    this.certificates = certificates;
    this.#folder = options.folder;
    this.#server = createServer({ key: certificates.key, cert: certificates.cert }, (request, response) => {
      const ours = request.url?.startsWith("/subscriptions") === true;
      void serve(request, response, async (wire) => {
        if (this.repeats && ours) await this.answer(wire); // the second one's fate is what counts
        return this.answer(wire);
      }).then(() => {
        if (ours) this.onAnswer(request.method ?? "", request.url ?? "");
      });
    });
    this.#metadata = createPlainServer((request, response) => {
      void serve(request, response, async (wire) => this.metadata.answer({ ...wire, vmId: undefined }));
    });
  }

  static async start(options: Omit<EndpointOptions, "folder"> = {}): Promise<ArmEndpoint> {
    const folder = await mkdtemp(join(tmpdir(), "arm-"));
    const endpoint = new ArmEndpoint({ ...options, folder }, await testCertificates());
    for (const server of [endpoint.#server, endpoint.#metadata]) {
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    }
    return endpoint;
  }

  /** Resource Manager; also the authority host of Entra. */
  get url(): string {
    return `https://127.0.0.1:${portOf(this.#server)}`;
  }

  /** The metadata service as the host of the caller sees it, for managed identities. */
  get metadataUrl(): string {
    return `http://127.0.0.1:${portOf(this.#metadata)}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of [this.#server, this.#metadata]) {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    }
    await rm(this.#folder, { recursive: true, force: true });
  }
}

function portOf(server: Server): number {
  return (server.address() as AddressInfo).port;
}

async function serve(
  request: IncomingMessage,
  response: ServerResponse,
  answer: (wire: WireRequest) => Promise<WireReply | undefined>,
): Promise<void> {
  try {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const { method = "", url: path = "/", headers } = request;
    const reply = await answer({ method, path, headers, body: Buffer.concat(chunks) });
    if (reply === undefined) {
      request.socket.destroy();
      return;
    }
    response.writeHead(reply.status, reply.headers);
    response.end(method === "HEAD" ? undefined : reply.body);
  } catch (e) {
    response.destroy(e instanceof Error ? e : undefined);
  }
}
