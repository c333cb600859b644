import { chmod, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { Fault } from "../../base/fault.ts";
import { mkdirPrivate } from "../../base/files.ts";
import type { Logger } from "../../base/log.ts";
import { AdminDefinition, JoinDefinition } from "../../gen/kataremote/podvm/v1/admin.ts";
import { PodVmDefinition } from "../../gen/kataremote/podvm/v1/podvm.ts";
import {
  createLocalClient,
  type Handlers,
  implement,
  type ServiceClient,
  type ServiceShape,
  type TlsIdentity,
} from "../../grpc/index.ts";
import type { JoinTokens, PodVmService } from "../podvm/index.ts";
import { type AdminDeps, adminHandlers } from "./admin-handlers.ts";
import type { Metrics } from "./metrics.ts";
import { podVmHandlers } from "./pod-vm-handlers.ts";
import { checkNodeId } from "./read-report.ts";

export interface GrpcDoorDeps {
  readonly service: PodVmService;
  readonly version: { readonly version: string; readonly provider: string };
  readonly metrics: Metrics;
  readonly log: Logger;
}

/** How long calls that are under way may take to end when a door closes, ms. */
const DRAIN_MS = 500;
const KEEPALIVE = {
  "grpc.keepalive_time_ms": 30_000,
  "grpc.keepalive_timeout_ms": 10_000,
  "grpc.http2.min_ping_interval_without_data_ms": 5_000,
};

/** What nodes call, for a node daemon in this process. */
export function openLocalDoor(deps: GrpcDoorDeps, closing: AbortSignal): ServiceClient<typeof PodVmDefinition> {
  const handlers = podVmHandlers({ ...deps, network: false, closing });
  return createLocalClient(PodVmDefinition, handlers, reporter(deps, closing));
}

/** One gRPC listener of the adaptor. */
export class GrpcDoor implements AsyncDisposable {
  readonly #server: Server;
  readonly #closing: AbortController;

  private constructor(server: Server, closing: AbortController) {
    this.#server = server;
    this.#closing = closing;
  }

  /**
   * Listens on a unix socket (0600). A socket file that a dead adaptor left is replaced; the caller's lock on the store
   * says that no living one has it.
   */
  static async openSocket(path: string, deps: GrpcDoorDeps, admin: AdminDeps): Promise<GrpcDoor> {
    await mkdirPrivate(dirname(path));
    await rm(path, { force: true });
    const umask = process.umask(0o077);
    try {
      return await GrpcDoor.#open(`unix://${path}`, ServerCredentials.createInsecure(), (server, closing) => {
        serve(server, PodVmDefinition, podVmHandlers({ ...deps, network: false, closing }), deps, closing);
        serve(server, AdminDefinition, adminHandlers(admin), deps, closing);
      });
    } finally {
      process.umask(umask);
      await chmod(path, 0o600).catch(() => undefined); // not there: listening failed, and that is thrown
    }
  }

  /** Listens on TCP for nodes that show a certificate of the cluster's CA. */
  static openNetwork(address: string, identity: TlsIdentity, deps: GrpcDoorDeps): Promise<GrpcDoor> {
    const credentials = serverCredentials(identity, true);
    return GrpcDoor.#open(address, credentials, (server, closing) => {
      serve(server, PodVmDefinition, podVmHandlers({ ...deps, network: true, closing }), deps, closing);
    });
  }

  /** Listens on TCP for nodes that have no certificate yet, and answers them nothing but that. */
  static openJoin(address: string, identity: TlsIdentity, deps: GrpcDoorDeps, tokens: JoinTokens): Promise<GrpcDoor> {
    return GrpcDoor.#open(address, serverCredentials(identity, false), (server, closing) => {
      const handlers: Handlers<typeof JoinDefinition> = {
        joinNode: ({ nodeId, csrPem, token }) => tokens.join(token, checkNodeId(nodeId), csrPem),
      };
      serve(server, JoinDefinition, handlers, deps, closing);
    });
  }

  static async #open(
    address: string,
    credentials: ServerCredentials,
    addServices: (server: Server, closing: AbortSignal) => void,
  ): Promise<GrpcDoor> {
    const server = new Server(KEEPALIVE);
    const closing = new AbortController();
    addServices(server, closing.signal);
    await new Promise<void>((resolve, reject) => {
      server.bindAsync(address, credentials, (cause) => {
        if (cause === null) resolve();
        else reject(new Fault("failed_precondition", `the adaptor cannot listen on ${address}`, {}, { cause }));
      });
    });
    return new GrpcDoor(server, closing);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new Fault("unavailable", "the adaptor is closing"));
    const drained = new Promise<void>((resolve) => this.#server.tryShutdown(() => resolve()));
    const timer = setTimeout(() => this.#server.forceShutdown(), DRAIN_MS).unref();
    await drained;
    clearTimeout(timer);
  }
}

function serve<S extends ServiceShape>(
  server: Server,
  service: S,
  handlers: Handlers<S>,
  deps: GrpcDoorDeps,
  closing: AbortSignal,
): void {
  server.addService(...implement(service, handlers, reporter(deps, closing)));
}

function reporter({ metrics, log }: GrpcDoorDeps, closing: AbortSignal) {
  return (method: string, error: unknown): void => {
    const fault = Fault.from(error);
    metrics.rpcFailed(method, fault.code);
    if (closing.aborted) return;
    const level = fault.code === "internal" ? "error" : "info";
    log[level]({ ...fault.context, method, code: fault.code, err: fault }, "call refused");
  };
}

function serverCredentials(identity: TlsIdentity, clientCertificates: boolean): ServerCredentials {
  const pair = { private_key: Buffer.from(identity.keyPem), cert_chain: Buffer.from(identity.certificatePem) };
  const ca = clientCertificates ? Buffer.from(identity.caPem) : null;
  return ServerCredentials.createSsl(ca, [pair], clientCertificates);
}
