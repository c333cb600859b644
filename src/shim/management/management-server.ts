import { once } from "node:events";
import { chmod, rm, rmdir } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server } from "node:http";
import { dirname } from "node:path";
import { type Call, withDeadline } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { mkdirPrivate } from "../../base/files.ts";
import type { Agent } from "../agent/index.ts";

export interface ManagementDeps {
  /** The pod's socket, `<dir>/<sandbox id>/shim-monitor.sock`. */
  readonly path: string;
  readonly agent: Pick<Agent, "metrics" | "ipTables" | "setIpTables" | "setPolicy">;
}

interface Answer {
  readonly status: number;
  readonly body: string | Uint8Array;
}

/** Rules and policies are text; more than this is a mistake. */
const MAX_BODY_BYTES = 4 << 20;
const AGENT_MS = 30_000;
const STATUS: Readonly<Record<string, number>> = { unimplemented: 501, invalid_argument: 400, permission_denied: 403 };
const NOT_HERE: Readonly<Record<string, string>> = {
  "/agent-url": "the agent of this pod is reached through the node daemon only: use kata-remote",
  "/direct-volume/stats": "this pod has no direct volumes",
  "/direct-volume/resize": "this pod has no direct volumes",
};

/**
 * What kata-monitor and kata-runtime ask a shim of one pod, as the Go shim answers it: GET /metrics, GET and PUT /iptables
 * and /ip6tables, PUT /policy. What a guest cannot do is 501, with its reason.
 * Source: reference §6.6; kata src/runtime/pkg/containerd-shim-v2/shim_management.go.
 */
export class ManagementServer {
  readonly #server: Server;
  readonly #path: string;

  private constructor(server: Server, path: string) {
    this.#server = server;
    this.#path = path;
  }

  /** @throws Fault when the socket cannot be made */
  static async open(deps: ManagementDeps): Promise<ManagementServer> {
    const { path } = deps;
    const server = createServer((request, response) => {
      void answer(request, deps).then(({ status, body }) => {
        response.writeHead(status, { "content-type": "text/plain; version=0.0.4" }).end(body);
      });
    });
    try {
      await mkdirPrivate(dirname(path));
      await rm(path, { force: true }); // of a daemon that was killed
      server.listen({ path });
      await once(server, "listening");
      await chmod(path, 0o600);
    } catch (cause) {
      server.close();
      throw new Fault(Fault.from(cause).code, `cannot listen on ${path}, for kata-monitor`, {}, { cause });
    }
    server.unref();
    return new ManagementServer(server, path);
  }

  async close(): Promise<void> {
    this.#server.close();
    this.#server.closeAllConnections();
    await rm(this.#path, { force: true });
    // Another program keeps files of its own there.
    await rmdir(dirname(this.#path)).catch(() => undefined);
  }
}

/** Never rejects. */
async function answer(request: IncomingMessage, { agent }: ManagementDeps): Promise<Answer> {
  const { pathname } = new URL(request.url ?? "/", "http://shim");
  const call = withDeadline(AGENT_MS);
  try {
    const handled = await handle(`${request.method} ${pathname}`, request, agent, call);
    if (handled !== undefined) return handled;
    const reason = NOT_HERE[pathname];
    return reason === undefined ? { status: 404, body: "404 page not found\n" } : { status: 501, body: `${reason}\n` };
  } catch (error) {
    const fault = Fault.from(error);
    return { status: STATUS[fault.code] ?? 500, body: `${fault.fullMessage}\n` };
  }
}

async function handle(
  what: string,
  request: IncomingMessage,
  agent: ManagementDeps["agent"],
  call: Call,
): Promise<Answer | undefined> {
  const ok = (body: string | Uint8Array): Answer => ({ status: 200, body });
  switch (what) {
    case "GET /metrics":
      return ok(await agent.metrics(call));
    case "GET /iptables":
    case "GET /ip6tables":
      return ok(await agent.ipTables(what.endsWith("ip6tables"), call));
    case "PUT /iptables":
    case "PUT /ip6tables":
      return ok(await agent.setIpTables(what.endsWith("ip6tables"), await bodyOf(request), call));
    case "PUT /policy":
      await agent.setPolicy((await bodyOf(request)).toString("utf8"), call);
      return ok("");
    default:
      return undefined;
  }
}

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of request as AsyncIterable<Buffer>) {
    bytes += part.length;
    if (bytes > MAX_BODY_BYTES) throw new Fault("invalid_argument", `more than ${MAX_BODY_BYTES} bytes were sent`);
    parts.push(part);
  }
  return Buffer.concat(parts);
}
