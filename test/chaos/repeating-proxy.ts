import {
  createServer,
  request as httpRequest,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from "node:http";
import type { AddressInfo } from "node:net";

interface Answer {
  readonly status: number;
  readonly headers: IncomingMessage["headers"];
  readonly body: Buffer;
}

/** Between a client and a cloud: passes requests on, each one twice when it is told to. The client gets the second answer. */
export class RepeatingProxy implements AsyncDisposable {
  /** Whether every request arrives twice. */
  repeats = false;
  /** Told of each request's body as soon as its answer is on its way to the client. */
  onAnswer: (body: string) => void = () => undefined;
  readonly #server: Server;
  readonly #target: URL;

  private constructor(target: string) {
    this.#target = new URL(target);
    this.#server = createServer((request, response) => {
      this.#pass(request, response).catch(() => response.destroy()); // the cloud gave no answer, so neither do we
    });
  }

  static async open(target: string): Promise<RepeatingProxy> {
    const proxy = new RepeatingProxy(target);
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  async #pass(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks);
    if (this.repeats) await this.#ask(request, body).catch(() => undefined); // the second one's fate is what counts
    const answer = await this.#ask(request, body);
    response.writeHead(answer.status, answer.headers);
    response.end(answer.body, () => this.onAnswer(body.toString()));
  }

  /** The headers as they came: the signature covers them. */
  #ask({ method, url, headers }: IncomingMessage, body: Buffer): Promise<Answer> {
    const { hostname, port } = this.#target;
    return new Promise((resolve, reject) => {
      const options = { hostname, port, method, path: url, headers, agent: false };
      const asked = httpRequest(options, (reply) => {
        const chunks: Buffer[] = [];
        reply.on("data", (chunk: Buffer) => chunks.push(chunk));
        reply.on("error", reject);
        reply.on("end", () => {
          const { connection: _, "transfer-encoding": __, ...kept } = reply.headers;
          resolve({ status: reply.statusCode ?? 502, headers: kept, body: Buffer.concat(chunks) });
        });
      });
      asked.on("error", reject);
      asked.end(body);
    });
  }
}
