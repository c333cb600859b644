import { mkdirPrivate } from "../base/files.ts";
import { parseSandboxId } from "../base/ids.ts";
import type { Logger } from "../base/log.ts";
import { VERSION } from "../base/version.ts";
import { type GuestFacts as FactsMessage, RelayDefinition, type StockGuest } from "../gen/kataremote/relay/v1/relay.ts";
import { type ServiceImplementation, TtrpcServer } from "../ttrpc/index.ts";
import { DaemonLine } from "./daemon-line.ts";
import { InProcessRelay, type RelayOptions } from "./in-process-relay.ts";
import { KeptAnswers } from "./kept-answers.ts";
import { Operations } from "./operations.ts";
import { type GuestFacts, KEEP_KEY, type StockGuestSpec } from "./relay.ts";
import { UnixListener } from "./unix-listener.ts";
import { callSocket, Meta, metadataValue, ownerSocket, withoutOwn } from "./wire.ts";

/** What had arrived from a guest before it went may be written for so long, ms. */
const LATE_OUTPUT_MS = 5_000;

export interface RelayServerDeps extends RelayOptions {
  /** Private to this relay; sockets are made in it. */
  readonly dir: string;
  readonly log: Logger;
  /** What it says it is; by default what it was built as. */
  readonly version?: string;
  readonly onAttached: () => void;
  /** The daemon's connection is gone. */
  readonly onDetached: () => void;
  /** How a dead daemon is started again, [] = by somebody else. */
  readonly onRestart: (argv: readonly string[]) => void;
  /** The daemon wants this process to end. */
  readonly onEnd: () => void;
}

/** What a relay process serves to node daemons, one at a time: an InProcessRelay behind two sockets. */
export class RelayServer implements AsyncDisposable {
  readonly #deps: RelayServerDeps;
  readonly #relay: InProcessRelay;
  readonly #line: DaemonLine;
  readonly #kept: KeptAnswers;
  readonly #operations = new Operations();
  readonly #server: TtrpcServer;
  #listeners: readonly UnixListener[] = [];

  private constructor(deps: RelayServerDeps) {
    this.#deps = deps;
    this.#relay = new InProcessRelay(deps);
    this.#line = new DaemonLine({
      ...{ log: deps.log, onAttached: deps.onAttached, onDetached: deps.onDetached },
      onAnswered: (key) => this.#kept.release(key),
    });
    this.#kept = new KeptAnswers({ isPending: (key) => this.#line.pending.has(key) });
    this.#server = new TtrpcServer({ log: deps.log });
    this.#server.addService(RelayDefinition, this.#service());
    this.#serveGuestCalls();
  }

  /** @throws Fault when the sockets cannot be made */
  static async open(deps: RelayServerDeps): Promise<RelayServer> {
    const server = new RelayServer(deps);
    await mkdirPrivate(deps.dir);
    await server.#relay.onTaskRequest((request, call) => server.#line.answer(request, call));
    const owner = await UnixListener.open(ownerSocket(deps.dir), (socket) => server.#line.attach(socket));
    // Last: whoever can connect to it finds the other one.
    const calls = await UnixListener.open(callSocket(deps.dir), (socket) => {
      server.#server.accept(socket);
    });
    server.#listeners = [calls, owner];
    return server;
  }

  get guestCount(): number {
    return this.#relay.guestCount;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#line.close();
    this.#server.close();
    for (const listener of this.#listeners) await listener.close();
    await this.#relay[Symbol.asyncDispose]();
  }

  #serveGuestCalls(): void {
    this.#server.setFallback(async (payload, call) => {
      const { service, method, metadata, timeoutMs } = call;
      const sandboxId = parseSandboxId(metadataValue(metadata, Meta.sandbox) ?? "");
      const guest = this.#relay.guest(sandboxId);
      const own = withoutOwn(metadata);
      const options = { metadata: own, ...(timeoutMs === undefined ? {} : { timeoutMs }) };
      const key = metadataValue(own, KEEP_KEY);
      // A call with a key goes on when its daemon dies: the next one asks for its answer.
      if (key !== undefined) {
        const { signal } = call;
        const work = (): Promise<Uint8Array> => guest.call(service, method, payload, options);
        return this.#kept.run(sandboxId, key, work, () => signal.aborted);
      }
      return this.#operations.run(call, ({ signal }) => guest.call(service, method, payload, { ...options, signal }));
    });
  }

  #service(): ServiceImplementation<typeof RelayDefinition> {
    const relay = this.#relay;
    const line = this.#line;
    const operations = this.#operations;
    return {
      held: async ({ version }) => {
        const { guests } = await relay.held();
        this.#deps.log.info({ version, guests: guests.size, waiting: line.pending.size }, "a node daemon came");
        return {
          ...{ version: this.#deps.version ?? VERSION, pid: process.pid, taskKeys: [...line.pending] },
          guests: [...guests].map(([sandboxId, facts]) => ({
            sandboxId,
            facts: wireFacts(facts),
          })),
        };
      },
      setRestart: async ({ argv }) => {
        this.#deps.onRestart(argv);
        return {};
      },
      openDoor: async ({ door, socketPath }) => {
        await relay.openDoor({ door, socketPath });
        return {};
      },
      closeDoor: async ({ door }) => {
        await relay.closeDoor(door);
        return {};
      },
      connectGuest: (request, served) =>
        operations.run(served, async (call) => {
          const sandboxId = parseSandboxId(request.sandboxId);
          const { addresses, port, hostname, podNetworkJson, lostAfterMs, caPem, certificatePem, keyPem, stock } =
            request;
          const facts = await relay.connectGuest(
            {
              ...{ sandboxId, addresses, port, hostname, lostAfterMs },
              ...(podNetworkJson === "" ? {} : { podNetworkJson }),
              ...(stock === undefined ? {} : { stock: stockGuest(stock) }),
              identity: { caPem, certificatePem, keyPem },
              sign: (csrPem, c) => line.sign(sandboxId, csrPem, c),
              onStage: (stage) => line.stage(sandboxId, stage),
            },
            call,
          );
          return wireFacts(facts);
        }),
      guestLost: ({ sandboxId }) => relay.guestLost(parseSandboxId(sandboxId)),
      declareLost: async ({ sandboxId, reason }) => {
        relay.declareLost(parseSandboxId(sandboxId), reason);
        return {};
      },
      disconnectGuest: async ({ sandboxId }) => {
        const id = parseSandboxId(sandboxId);
        await relay.disconnectGuest(id);
        this.#kept.forget(id);
        // Late output may still be written; of a pod that nobody goes on with, nobody closes the streams either.
        setTimeout(() => void relay.detachAll(id), LATE_OUTPUT_MS).unref();
        return {};
      },
      sendTree: ({ sandboxId, treeId, path }, served) =>
        operations.run(served, async (call) => {
          const receipt = await relay.sendTree(parseSandboxId(sandboxId), { treeId, path }, call);
          return { ...receipt, bytes: BigInt(receipt.bytes) };
        }),
      openAgentSocket: async ({ sandboxId, path, podUid, directVolumesDir, rootfsDir }) => {
        await relay.openAgentSocket({
          ...{ sandboxId: parseSandboxId(sandboxId), path, podUid },
          ...(directVolumesDir === "" ? {} : { directVolumesDir }),
          ...(rootfsDir === "" ? {} : { rootfsDir }),
        });
        return {};
      },
      closeAgentSocket: async ({ sandboxId }) => {
        await relay.closeAgentSocket(parseSandboxId(sandboxId));
        return {};
      },
      agentSocketUse: async () => ({
        sockets: (await relay.agentSocketUse()).map((use) => ({ ...use, idleMs: BigInt(use.idleMs) })),
      }),
      attachStdio: ({ sandboxId, ...rest }, served) =>
        operations.run(served, async (call) => {
          const { key, containerId, execId, terminal, stdin, stdout, stderr, namespace } = rest;
          const streams = { terminal, stdin, stdout, stderr, namespace };
          await relay.attachStdio({ key, sandboxId: parseSandboxId(sandboxId), containerId, execId, ...streams }, call);
          return {};
        }),
      stdioDrained: async ({ key }) => {
        await relay.stdioDrained(key);
        return {};
      },
      giveUpOutput: async ({ key }) => {
        await relay.giveUpOutput(key);
        return {};
      },
      processExit: ({ key }, served) =>
        operations.run(served, async (call) => {
          const { status, at } = await relay.processExit(key, call);
          return { status, atUnixMs: BigInt(at.getTime()) };
        }),
      closeStdin: ({ key }, served) =>
        operations.run(served, async (call) => {
          await relay.closeStdin(key, call);
          return {};
        }),
      detachStdio: async ({ key }) => {
        await relay.detachStdio(key);
        return {};
      },
      cancel: async ({ key }) => {
        operations.cancel(key);
        return {};
      },
      end: async () => {
        // After the answer has gone out.
        setImmediate(() => this.#deps.onEnd());
        return {};
      },
    };
  }
}

function stockGuest({ serverName, certificatePem, minVersion, ciphers }: StockGuest): StockGuestSpec {
  return {
    serverName,
    ...(certificatePem === "" ? {} : { certificatePem }),
    ...(minVersion === "TLSv1.2" || minVersion === "TLSv1.3" ? { minVersion } : {}),
    ...(ciphers === "" ? {} : { ciphers }),
  };
}

function wireFacts(facts: GuestFacts): FactsMessage {
  return { tunnelKey: "", ...facts, listeningMs: BigInt(Math.round(facts.listeningMs)) };
}
