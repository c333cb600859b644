import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { TestImage } from "../support/test-image.ts";

export interface Asked {
  readonly path: string;
  readonly authorization: string | undefined;
  readonly range: string | undefined;
}

/** How a blob is sent instead of as it should be; true = it was answered. */
export type Misbehave = (request: Asked, response: ServerResponse, bytes: Buffer) => boolean;

export interface RegistryOptions {
  /** "user:password" that it wants, by Basic or a token of its own. */
  readonly login?: string;
  readonly scheme?: "basic" | "bearer";
  /** How many requests a token is good for. */
  readonly tokenUses?: number;
  /** Where blobs are sent from instead. */
  readonly blobsAt?: string;
}

/** A registry over HTTP without TLS that can be told to misbehave. */
export class FakeRegistry implements AsyncDisposable {
  readonly asked: Asked[] = [];
  readonly tokenRequests: URL[] = [];
  /** Takes blobs' requests over. */
  misbehave: Misbehave | undefined;
  readonly #options: RegistryOptions;
  readonly #documents = new Map<string, { readonly bytes: Buffer; readonly type: string }>();
  readonly #blobs = new Map<string, Buffer>();
  readonly #server = createServer((request, response) => this.#answer(request, response));
  readonly #uses = new Map<string, number>();

  private constructor(options: RegistryOptions) {
    this.#options = options;
  }

  static async start(options: RegistryOptions = {}): Promise<FakeRegistry> {
    const registry = new FakeRegistry(options);
    registry.#server.listen(0, "127.0.0.1");
    await once(registry.#server, "listening");
    return registry;
  }

  get host(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** @returns the reference */
  add(
    repository: string,
    tag: string,
    image: Pick<TestImage, "manifest" | "mediaType" | "digest"> & Partial<TestImage>,
  ): string {
    for (const name of [tag, image.digest])
      this.#documents.set(`/v2/${repository}/manifests/${name}`, { bytes: image.manifest, type: image.mediaType });
    for (const [digest, bytes] of image.blobs ?? []) this.#blobs.set(digest, bytes);
    return `${this.host}/${repository}:${tag}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, "close");
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url ?? "/", `http://${this.host}`);
    const { authorization, range } = request.headers;
    if (url.pathname === "/token") {
      this.#token(url, authorization, response);
      return;
    }
    const asked: Asked = { path: url.pathname, authorization, range };
    this.asked.push(asked);
    if (!url.pathname.startsWith("/blob-store/") && !this.#allowed(asked, response)) return;
    const document = this.#documents.get(url.pathname);
    const blob = this.#blobs.get(/sha256:\w+$/.exec(url.pathname)?.[0] ?? "");
    if (document !== undefined) {
      response.writeHead(200, { "content-type": document.type }).end(document.bytes);
    } else if (blob === undefined) {
      response.writeHead(404).end(JSON.stringify({ errors: [{ code: "UNKNOWN", message: "nothing of that name" }] }));
    } else if (this.#options.blobsAt !== undefined && !url.pathname.startsWith("/blob-store/")) {
      response.writeHead(307, { location: `${this.#options.blobsAt}/blob-store${url.pathname}` }).end();
    } else if (this.misbehave?.(asked, response, blob) !== true) sendFrom(blob, range, response);
  }

  #allowed({ path, authorization }: Asked, response: ServerResponse): boolean {
    const { login, scheme = "basic", tokenUses = Number.POSITIVE_INFINITY } = this.#options;
    if (login === undefined) return true;
    if (scheme === "basic") {
      if (authorization === `Basic ${Buffer.from(login).toString("base64")}`) return true;
      response.writeHead(401, { "www-authenticate": 'Basic realm="here"' }).end();
      return false;
    }
    const token = authorization?.replace("Bearer ", "") ?? "";
    const used = this.#uses.get(token);
    if (used !== undefined && used < tokenUses) {
      this.#uses.set(token, used + 1);
      return true;
    }
    const scope = `repository:${path.split("/").slice(2, -2).join("/")}:pull`;
    const challenge = `Bearer realm="http://${this.host}/token",service="fake, registry",scope="${scope}"`;
    response.writeHead(401, { "www-authenticate": challenge }).end();
    return false;
  }

  #token(url: URL, authorization: string | undefined, response: ServerResponse): void {
    this.tokenRequests.push(url);
    if (authorization !== `Basic ${Buffer.from(this.#options.login ?? "").toString("base64")}`) {
      response.writeHead(401).end("{}");
      return;
    }
    const token = `token-${this.tokenRequests.length}`;
    this.#uses.set(token, 0);
    response.end(JSON.stringify({ token }));
  }
}

/** As a registry does it: the whole, or the part that was asked for. */
export function sendFrom(bytes: Buffer, range: string | undefined, response: ServerResponse): void {
  const start = Number(/^bytes=(\d+)-$/.exec(range ?? "")?.[1] ?? 0);
  const headers = { "content-length": bytes.length - start };
  if (start === 0) response.writeHead(200, headers);
  else response.writeHead(206, { ...headers, "content-range": `bytes ${start}-${bytes.length - 1}/${bytes.length}` });
  response.end(bytes.subarray(start));
}
