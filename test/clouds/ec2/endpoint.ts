import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { Ec2Service, type EndpointOptions } from "./service.ts";

/** EC2's Query API over HTTP, for one account in one region, as an unmodified client sees it. */
export class Ec2Endpoint extends Ec2Service implements AsyncDisposable {
  readonly #server: Server;

  private constructor(options: EndpointOptions) {
    super(options);
    this.#server = createServer((request, response) => {
      this.#serve(request, response).catch((e: unknown) => response.destroy(e instanceof Error ? e : undefined));
    });
  }

  static async start(options: EndpointOptions = {}): Promise<Ec2Endpoint> {
    const endpoint = new Ec2Endpoint(options);
    await new Promise<void>((resolve) => endpoint.#server.listen(0, "127.0.0.1", resolve));
    return endpoint;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const { method = "", url: path = "/", headers } = request;
    const reply = await this.answer({ method, path, headers, body: Buffer.concat(chunks).toString() });
    if (reply === undefined) {
      request.socket.destroy();
      return;
    }
    response.writeHead(reply.status, reply.headers);
    response.end(reply.body);
  }
}
