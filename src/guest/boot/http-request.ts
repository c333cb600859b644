import { request as send } from "node:http";

export interface HttpRequest {
  readonly method: "GET" | "PUT" | "POST";
  /** "host" or "host:port" of a service of the machine's own network; never a name. */
  readonly host: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
}

export interface HttpReply {
  readonly status: number;
  readonly body: Buffer;
}

/** The largest user-data of all clouds is 64 KiB, in base64 87 KiB. */
const MAX_BODY_BYTES = 128 * 1024;

/**
 * One request on a connection of its own, to its end.
 * @throws what Node's network code throws; AbortError, TimeoutError; RangeError when the answer is too long
 */
export async function httpRequest(request: HttpRequest, signal: AbortSignal): Promise<HttpReply> {
  const [hostname, port = "80"] = request.host.split(":");
  const { promise, resolve, reject } = Promise.withResolvers<HttpReply>();
  const { method, path } = request;
  const length = request.body === undefined ? {} : { "content-length": String(Buffer.byteLength(request.body)) };
  const headers = { ...request.headers, ...(method === "PUT" ? { "content-length": "0" } : {}), ...length };
  const sent = send({ hostname, port, method, path, headers, agent: false, signal }, (reply) => {
    const parts: Buffer[] = [];
    let length = 0;
    reply.on("error", reject);
    reply.on("data", (data: Buffer) => {
      length += data.length;
      if (length > MAX_BODY_BYTES) {
        reply.destroy(new RangeError(`the answer is longer than ${MAX_BODY_BYTES} bytes`));
        return;
      }
      parts.push(data);
    });
    reply.on("end", () => resolve({ status: reply.statusCode ?? 0, body: Buffer.concat(parts) }));
  });
  sent.on("error", reject);
  sent.end(request.body);
  return await promise;
}
