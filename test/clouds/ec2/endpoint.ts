import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { EbsService } from "./ebs/ebs-service.ts";
import type { RestModel } from "./ebs/rest-model.ts";
import { Ec2Service, type EndpointOptions } from "./service.ts";

export interface ListenOptions extends EndpointOptions {
  /** 127.0.0.1 unless given. */
  readonly host?: string;
  /** A free one unless given. */
  readonly port?: number;
  /** The published description of the EBS direct APIs. */
  readonly ebsModel?: RestModel;
}

/** EC2's Query API and the EBS direct APIs over HTTP, for one account in one region, as an unmodified client sees them. */
export class Ec2Endpoint extends Ec2Service implements AsyncDisposable {
  readonly #server: Server;
  readonly #ebs: EbsService;

  private constructor(options: ListenOptions) {
    super(options);
    const { account, credentials, faults, requests, replyProblems } = this;
    this.#ebs = new EbsService({ account, credentials, faults, requests, replyProblems, model: options.ebsModel });
    this.#server = createServer((request, response) => {
      this.#serve(request, response).catch((e: unknown) => response.destroy(e instanceof Error ? e : undefined));
    });
  }

  static async start(options: ListenOptions = {}): Promise<Ec2Endpoint> {
    const endpoint = new Ec2Endpoint(options);
    const { port = 0, host = "127.0.0.1" } = options;
    await new Promise<void>((resolve, reject) => {
      endpoint.#server.once("error", reject);
      endpoint.#server.listen(port, host, resolve);
    });
    return endpoint;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.account.snapshots[Symbol.dispose]();
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const { method = "", url: path = "/", headers } = request;
    const body = Buffer.concat(chunks);
    const reply = path.startsWith("/snapshots")
      ? await this.#ebs.answer({ method, path, headers, body })
      : await this.answer({ method, path, headers, body: body.toString() });
    if (reply === undefined) {
      request.socket.destroy();
      return;
    }
    response.writeHead(reply.status, reply.headers);
    response.end(reply.body);
  }
}
