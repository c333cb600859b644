import { request } from "node:http";
import type { Call } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import { loadAdaptorConfig } from "./adaptor.ts";

/**
 * Body of a GET at the adaptor's REST door, found through this machine's adaptor configuration.
 * @throws Fault unavailable when no adaptor answers; not_found and others as its problem document says
 */
export async function adaptorText(path: string, call: Call): Promise<string> {
  const { rest } = await loadAdaptorConfig();
  const where = rest.socketPath === undefined ? { host: rest.host, port: rest.port } : { socketPath: rest.socketPath };
  const name = rest.socketPath ?? `${rest.host}:${rest.port}`;
  return new Promise((resolve, reject) => {
    const sent = request({ ...where, path, signal: call.signal }, (reply) => {
      let body = "";
      reply.setEncoding("utf8").on("data", (d: string) => {
        body += d;
      });
      reply.on("error", reject);
      reply.on("end", () => {
        if (reply.statusCode === 200) resolve(body);
        else
          reject(
            new Fault(
              reply.statusCode === 404 ? "not_found" : "internal",
              `the adaptor at ${name} answered ${reply.statusCode}: ${body}`,
            ),
          );
      });
    });
    sent.on("error", (cause) => {
      reject(new Fault("unavailable", `no adaptor answers at ${name}`, { address: name }, { cause }));
    });
    sent.end();
  });
}
