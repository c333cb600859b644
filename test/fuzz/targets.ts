import { once } from "node:events";
import { createServer } from "node:net";
import type { Duplex } from "node:stream";
import { connect as connectTls } from "node:tls";
import { HealthDefinition } from "../../src/gen/agent/health.ts";
import { TaskDefinition } from "../../src/gen/containerd/task/v2/shim.ts";
import { HypervisorDefinition } from "../../src/gen/hypervisor/hypervisor.ts";
import { TREE_ALPN } from "../../src/guestwire/index.ts";
import { Code, createClient, StatusError, TtrpcClient } from "../../src/ttrpc/index.ts";
import { dialTcp, dialTls, dialUnix } from "./dial.ts";
import type { ForwarderReady } from "./forwarder-process.ts";
import type { NodeReady } from "./node-process.ts";
import type { Random } from "./random.ts";
import { AGENT_SAMPLES, GUEST_SAMPLES, HYPERVISOR_SAMPLES, taskSamples } from "./samples.ts";
import type { Sample, Target } from "./target.ts";
import { TargetProcess } from "./target-process.ts";

const PROBE_MS = 15_000;

/** The sockets that a run attacks, by name. */
export const TARGETS: Readonly<Record<string, () => Promise<Target>>> = {
  hypervisor: openHypervisor,
  relay: openRelay,
  forwarder: openForwarder,
  task: openTask,
};

interface Parts {
  readonly name: string;
  readonly process: TargetProcess;
  readonly samples: readonly Sample[];
  readonly connect: () => Promise<Duplex>;
  readonly probe: (client: TtrpcClient) => Promise<void>;
  readonly garbage?: Target["garbage"];
}

function target({ process, probe, garbage, ...parts }: Parts): Target {
  return {
    ...parts,
    ...(garbage === undefined ? {} : { garbage }),
    probe: async () => {
      const client = new TtrpcClient(await parts.connect());
      try {
        await probe(client);
      } finally {
        client.close();
      }
    },
    usage: () => process.usage(),
    ended: () => process.ended(),
    close: () => process.close(),
  };
}

async function healthCheck(client: TtrpcClient): Promise<void> {
  const { status } = await createClient(HealthDefinition, client).check({ service: "" }, { timeoutMs: PROBE_MS });
  if (status !== 1) throw new Error(`Health.Check gave ${status}`);
}

async function openHypervisor(): Promise<Target> {
  const [process, { hypervisor }] = await TargetProcess.start<NodeReady>("node-process.ts");
  const probe = async (client: TtrpcClient): Promise<void> => {
    const { version } = await createClient(HypervisorDefinition, client).version(
      { version: "1" },
      { timeoutMs: PROBE_MS },
    );
    if (version !== "0.0.0") throw new Error(`Version gave ${version}`);
  };
  const connect = (): Promise<Duplex> => dialUnix(hypervisor);
  return target({ name: "hypervisor", process, samples: HYPERVISOR_SAMPLES, connect, probe });
}

async function openTask(): Promise<Target> {
  const [process, { task, bundle }] = await TargetProcess.start<NodeReady>("node-process.ts");
  const probe = async (client: TtrpcClient): Promise<void> => {
    const call = createClient(TaskDefinition, client).state({ id: "nobody", execId: "" }, { timeoutMs: PROBE_MS });
    const error = await call.then(
      () => undefined,
      (e: unknown) => e,
    );
    if (!(error instanceof StatusError) || error.code !== Code.notFound) throw new Error(`State gave ${String(error)}`);
  };
  const connect = (): Promise<Duplex> => dialUnix(task);
  return target({ name: "task", process, samples: taskSamples(bundle), connect, probe });
}

async function openRelay(): Promise<Target> {
  const [process, { path }] = await TargetProcess.start<{ readonly path: string }>("relay-process.ts");
  const connect = (): Promise<Duplex> => dialUnix(path);
  return target({ name: "relay", process, samples: AGENT_SAMPLES, connect, probe: healthCheck });
}

async function openForwarder(): Promise<Target> {
  const [process, peer] = await TargetProcess.start<ForwarderReady>("forwarder-process.ts");
  const hello = await clientHello();
  const tree = treeStart();
  const garbage = (r: Random): { connect(): Promise<Duplex>; bytes: Buffer } => {
    switch (r.below(3)) {
      case 0: // no TLS at all, or a spoilt beginning of it
        return { connect: () => dialTcp(peer.port), bytes: hello };
      case 1: // spoilt records below a good session
        return {
          connect: async () => {
            const socket = await dialTcp(peer.port);
            const tls = await dialTls(peer, { socket });
            tls.on("error", () => undefined); // what we write below breaks it
            return socket;
          },
          bytes: Buffer.concat([Buffer.from([0x17, 3, 3, 0, 40]), r.bytes(40)]),
        };
      default:
        return { connect: () => dialTls(peer, { alpn: TREE_ALPN }), bytes: tree };
    }
  };
  const connect = (): Promise<Duplex> => dialTls(peer);
  return target({ name: "forwarder", process, samples: GUEST_SAMPLES, connect, probe: healthCheck, garbage });
}

/** The first bytes of a TLS client. */
async function clientHello(): Promise<Buffer> {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  const connection = once(server, "connection");
  const client = connectTls({ port, host: "127.0.0.1", rejectUnauthorized: false });
  client.on("error", () => undefined); // nobody answers it
  const [socket] = (await connection) as [Duplex];
  const [bytes] = (await once(socket, "data")) as [Buffer];
  client.destroy();
  socket.destroy();
  server.close();
  return bytes;
}

/** Header and first frame of a tree connection. */
function treeStart(): Buffer {
  const header = Buffer.from('{"treeId":"t"}');
  const frame = Buffer.alloc(512, 0x61);
  const u32 = (n: number): Buffer => Buffer.from([n >>> 24, n >>> 16, n >>> 8, n]);
  return Buffer.concat([u32(header.length), header, u32(frame.length), frame, u32(0), Buffer.alloc(32)]);
}
