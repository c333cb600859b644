import { get as getPlain } from "node:http";
import { get as getSecure } from "node:https";
import type { Call } from "../../src/base/call.ts";

export interface HttpAnswer {
  readonly status: number;
  readonly body: Buffer;
}

export interface HttpGetOptions {
  readonly headers?: Readonly<Record<string, string>>;
  /** CA certificates (PEM) in place of the well-known ones. */
  readonly ca?: string | undefined;
  readonly timeoutMs: number;
  /** The newest of what is longer than this are kept. */
  readonly maxBytes: number;
}

/** One GET of what the SDK has no operation for. @throws Node's network errors, the call's AbortError */
export function httpGet(url: string, options: HttpGetOptions, call: Call): Promise<HttpAnswer> {
  const { headers = {}, ca, timeoutMs, maxBytes } = options;
  const signal = AbortSignal.any([call.signal, AbortSignal.timeout(timeoutMs)]);
  const { promise, resolve, reject } = Promise.withResolvers<HttpAnswer>();
  const settings = { headers, signal, ...(ca === undefined ? {} : { ca }) };
  const request = (url.startsWith("https:") ? getSecure : getPlain)(url, settings, (response) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    response.on("data", (chunk: Buffer) => {
      chunks.push(chunk);
      bytes += chunk.byteLength;
      while (bytes - (chunks[0]?.byteLength ?? 0) >= maxBytes) bytes -= chunks.shift()?.byteLength ?? 0;
    });
    response.on("end", () => resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks) }));
    response.on("error", reject);
  });
  request.on("error", reject);
  return promise;
}
