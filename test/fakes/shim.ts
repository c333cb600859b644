import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { background, type Call } from "../../src/base/call.ts";
import { parseConfig } from "../../src/base/config.ts";
import { silentLogger } from "../../src/base/log.ts";
import * as events from "../../src/gen/containerd/events/task.ts";
import { EventsDefinition } from "../../src/gen/containerd/services/events/ttrpc/v1/events.ts";
import { TaskDefinition } from "../../src/gen/containerd/task/v2/shim.ts";
import { createShim, ShimConfig, type ShimService } from "../../src/shim/index.ts";
import {
  type Codec,
  createClient,
  type Metadata,
  type ServiceClient,
  StatusError,
  TtrpcServer,
} from "../../src/ttrpc/index.ts";
import { FakeHypervisor } from "./hypervisor.ts";
import { FakePodNetwork } from "./pod-network.ts";
import { daemonsView, FakeRelay } from "./relay.ts";

export interface SeenEvent {
  readonly namespace: string;
  readonly topic: string;
  readonly message: Record<string, unknown>;
}

/** containerd's side of events: a real ttrpc server on a unix socket. */
export class EventSink {
  readonly path: string;
  readonly events: SeenEvent[] = [];
  /** Runs before an event is taken. */
  beforeEach: () => Promise<void> = async () => {};
  /** That were made so far. */
  connections = 0;
  #server: Server | undefined;
  #ttrpc: TtrpcServer | undefined;
  readonly #sockets = new Set<Socket>();

  constructor(path: string) {
    this.path = path;
  }

  get topics(): string[] {
    return this.events.map((e) => e.topic);
  }

  async listen(): Promise<void> {
    const ttrpc = new TtrpcServer();
    ttrpc.addService(EventsDefinition, {
      forward: async ({ envelope }) => {
        await this.beforeEach();
        const type = envelope?.event?.typeUrl.replace("containerd.events.", "") ?? "";
        const codec = (events as unknown as Record<string, Codec<Record<string, unknown>>>)[type];
        const { _unknownFields, ...message } = codec?.decode(envelope?.event?.value ?? Buffer.alloc(0)) ?? {};
        this.events.push({ namespace: envelope?.namespace ?? "", topic: envelope?.topic ?? "", message });
        return {};
      },
    });
    this.#ttrpc = ttrpc;
    this.#server = createServer((socket) => {
      this.connections++;
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
      ttrpc.accept(socket);
    });
    await new Promise<void>((resolve) => this.#server?.listen(this.path, resolve));
  }

  async close(): Promise<void> {
    this.#ttrpc?.close();
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => (this.#server === undefined ? resolve(undefined) : this.#server.close(resolve)));
    this.#server = undefined;
  }
}

/** A shim over fakes, with its bundles below a directory of its own. */
export class ShimFixture {
  readonly relay = new FakeRelay();
  readonly hypervisor: FakeHypervisor;
  readonly qemu = new FakeHypervisor("qemu");
  readonly network = new FakePodNetwork();
  readonly dir: string;
  readonly runDir: string;
  readonly sink: EventSink;
  shim: ShimService;
  #view: ReturnType<typeof daemonsView> | undefined;

  private constructor(dir: string, hypervisor: FakeHypervisor) {
    this.dir = dir;
    this.runDir = join(dir, "run");
    this.hypervisor = hypervisor;
    this.sink = new EventSink(join(dir, "events.sock"));
    this.shim = this.nextShim();
  }

  static async create(): Promise<ShimFixture> {
    const fixture = new ShimFixture(await mkdtemp(join(tmpdir(), "shim-")), new FakeHypervisor());
    await mkdir(fixture.runDir);
    await fixture.sink.listen();
    return fixture;
  }

  /** The next daemon on the same run directory, whose relay went with its daemon. */
  newShim(config: Record<string, unknown> = {}): ShimService {
    this.relay.die();
    return this.nextShim(config);
  }

  /** The next daemon on the same run directory and the same relay. */
  nextShim(config: Record<string, unknown> = {}): ShimService {
    this.#view?.kill();
    this.#view = daemonsView(this.relay);
    this.shim = createShim({
      relay: this.#view.relay,
      hypervisors: new Map([
        ["remote", this.hypervisor],
        ["qemu", this.qemu],
      ]),
      podNetwork: this.network,
      config: parseConfig(ShimConfig, config, "test"),
      log: silentLogger(),
      runDir: this.runDir,
      doorAddress: (door) => (door.includes("@") ? door : `/address/of/${door}`),
    });
    return this.shim;
  }

  /** A Task client as containerd is one. `key`: of every call, as when the next daemon gets it. */
  task(
    options: { namespace?: string; door?: string; service?: string; call?: Call; key?: string } = {},
  ): ServiceClient<typeof TaskDefinition> {
    const { namespace = "default", door = "door", service = TaskDefinition.fullName, call = background() } = options;
    const metadata: Metadata = [["containerd-namespace-ttrpc", namespace]];
    const caller = {
      call: async (_service: string, method: string, payload: Uint8Array): Promise<Uint8Array> => {
        const reply = await this.shim.answer(
          {
            key: options.key ?? randomUUID(),
            door,
            connection: 1,
            service,
            method,
            payload,
            metadata,
            timeoutMs: undefined,
          },
          call,
        );
        if (reply.ok) return reply.payload;
        throw new StatusError(reply.code, reply.message);
      },
    };
    return createClient(TaskDefinition, caller);
  }

  /** Makes a bundle as containerd and the launcher leave it. */
  async bundle(
    id: string,
    spec: (base: Record<string, unknown>) => unknown = (base) => base,
    namespace = "default",
  ): Promise<string> {
    const path = join(this.dir, namespace, id);
    await mkdir(join(path, "rootfs/bin"), { recursive: true });
    await writeFile(join(path, "config.json"), JSON.stringify(spec(baseSpec())));
    await writeFile(join(path, "kata-remote.env"), `TTRPC_ADDRESS=${this.sink.path}\nid=${id}\n`);
    return path;
  }

  async createRequest(id: string, spec?: (base: Record<string, unknown>) => unknown, namespace?: string) {
    const bundle = await this.bundle(id, spec, namespace);
    return {
      id,
      bundle,
      rootfs: [],
      terminal: false,
      stdin: "",
      stdout: "/out",
      stderr: "/err",
      checkpoint: "",
      parentCheckpoint: "",
      options: undefined,
    };
  }

  /** Creates and starts a container. */
  async run(id = "c1", namespace = "default"): Promise<void> {
    const task = this.task({ namespace });
    await task.create(await this.createRequest(id, undefined, namespace));
    await task.start({ id, execId: "" });
  }

  async close(): Promise<void> {
    await this.shim.close("test over");
    await this.sink.close();
    await rm(this.dir, { recursive: true, force: true });
  }
}

/** What ctr's default spec comes down to. */
/** Fails unless the call is answered with that error, as containerd gets it. */
export async function rejectsStatus(work: Promise<unknown>, code: number, message: RegExp): Promise<void> {
  await assert.rejects(work, (e: unknown) => {
    assert.ok(e instanceof StatusError, String(e));
    assert.match(e.message, message);
    assert.equal(e.code, code, e.message);
    return true;
  });
}

export function baseSpec(): Record<string, unknown> {
  return {
    ociVersion: "1.0.2",
    process: { args: ["sh"], cwd: "/", user: { uid: 0, gid: 0 }, env: ["PATH=/bin"] },
    root: { path: "rootfs" },
    mounts: [{ destination: "/proc", type: "proc", source: "proc", options: ["nosuid"] }],
    linux: { namespaces: ["pid", "ipc", "uts", "mount", "network", "cgroup"].map((type) => ({ type })) },
  };
}

/** Looks until it is so. */
export async function until(what: () => boolean, ms = 5_000): Promise<void> {
  const end = Date.now() + ms;
  while (!what()) {
    if (Date.now() > end) throw new Error(`not so after ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
