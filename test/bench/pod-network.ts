import { once } from "node:events";
import { mkdirSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { Cri } from "../e2e/harness/cri.ts";
import { BUSYBOX } from "../e2e/harness/images.ts";
import { until } from "../e2e/harness/processes.ts";
import { must } from "../e2e/harness/run-command.ts";
import { packPeer, peerInPod } from "../e2e/network/peer-program.ts";
import { type TunnelKind, VXLAN, WIREGUARD } from "../e2e/network/tunnel-kinds.ts";
import type { BenchScope } from "./bench-scope.ts";
import { type Figure, figure } from "./figure.ts";
import { median } from "./measure.ts";
import type { NetworkSample } from "./network-client.ts";
import { PodNetworkSpaces } from "./pod-network-spaces.ts";
import { PodWorld } from "./pod-world.ts";

const ROUNDS = 5;
const STREAM_MS = 1_000;
const TRIPS = 3_000;
const PORT = 7008;
const VM_MIB = 16;
const VM_STREAMS = 3;
const VM_PINGS = 40;

/** What the way into the VM costs: between namespaces, where nothing is emulated, then to a pod in a real VM. */
export async function podNetworkFigures(scope: BenchScope): Promise<Figure[]> {
  const figures = await spacesFigures(scope);
  for (const kind of [VXLAN, WIREGUARD]) figures.push(...(await vmFigures(scope, kind)));
  return figures;
}

async function spacesFigures(scope: BenchScope): Promise<Figure[]> {
  scope.say(`VXLAN between namespaces and a plain veth pair on the same bridge, ${ROUNDS} times in turn`);
  await using spaces = await PodNetworkSpaces.open(scope);
  const samples: Record<"plain" | "carried", NetworkSample[]> = { plain: [], carried: [] };
  for (let round = 0; round < ROUNDS; round++) {
    for (const pod of ["plain", "carried"] as const) {
      scope.call.signal.throwIfAborted();
      samples[pod].push(await spaces.sample(pod, STREAM_MS, TRIPS));
    }
  }
  const of = (pod: "plain" | "carried", what: keyof NetworkSample): number => median(samples[pod].map((s) => s[what]));
  const base = (what: keyof NetworkSample) => ({
    value: of("plain", what),
    text: `veth and bridge (${Math.round(of("plain", what))})`,
  });
  const added = of("carried", "p50Us") - of("plain", "p50Us");
  return [
    figure("pod-network.vxlan.tcp", "TCP from a pod, VXLAN between namespaces", of("carried", "mbPerSecond"), "MB/s", {
      base: base("mbPerSecond"),
    }),
    figure("pod-network.vxlan.rtt.p50", "round trip of a byte over TCP, p50", of("carried", "p50Us"), "us", {
      base: base("p50Us"),
    }),
    figure("pod-network.vxlan.rtt.p99", "round trip of a byte over TCP, p99", of("carried", "p99Us"), "us", {
      base: base("p99Us"),
    }),
    figure("pod-network.vxlan.rtt.added", "added by the tunnel, p50", added, "us"),
  ];
}

/** A pod of the CRI with a bridge CNI, in a VM of its own. */
async function vmFigures(scope: BenchScope, { name, podNetwork }: TunnelKind): Promise<Figure[]> {
  scope.say(`a pod in a VM, by ${name}`);
  const settings = { network: "tap", podNetwork: { ...podNetwork, bypassConntrack: false } } as const;
  await using world = await PodWorld.start(scope, { name: `n${name.slice(0, 1)}`, installation: settings });
  await world.startContainerd();
  await world.startDaemon();
  const cri = new Cri(world.containerd.address, join(world.folder, "logs"));
  try {
    mkdirSync(join(world.folder, "mounts"));
    const peer = await packPeer(join(world.folder, "mounts", "peer"));
    const pod = await cri.runPod({ name: "n" }, 400_000);
    const address = await cri.podAddress(pod);
    const command = peerInPod("tcp-send", String(PORT), String(VM_MIB));
    await cri.startContainer(pod, { name: "peer", image: BUSYBOX, command, mounts: [{ ...peer, readonly: true }] });
    await until("the pod to serve", 60_000, () => answers(address));
    const streams: number[] = [];
    for (let i = 0; i < VM_STREAMS; i++) streams.push(await download(address));
    const vm = / kata-remote\.ip=([\d.]+)\//.exec(world.vms()[0]?.command ?? "")?.[1];
    if (vm === undefined) throw new Error("the VM's own address is not known");
    const [direct, carried] = [await ping(vm), await ping(address)];
    const note = world.acceleration();
    const base = { value: direct, text: `the VM's own address (${Math.round(direct)})` };
    return [
      figure(`pod-network.${name}.vm.tcp`, `TCP from a pod in a VM, by ${name}`, median(streams), "MB/s", { note }),
      figure(`pod-network.${name}.vm.ping`, `ping of a pod in a VM, by ${name}`, carried, "us", { base, note }),
      figure(`pod-network.${name}.vm.added`, "added by the tunnel", carried - direct, "us", { note }),
    ];
  } finally {
    await cri.close();
  }
}

async function answers(host: string): Promise<boolean> {
  const socket = connect({ host, port: PORT });
  try {
    await once(socket, "data");
    return true;
  } catch {
    return false; // not yet
  } finally {
    socket.destroy();
  }
}

/** MB/s of one stream. */
async function download(host: string): Promise<number> {
  const socket = connect({ host, port: PORT });
  const began = performance.now();
  let bytes = 0;
  for await (const data of socket) bytes += (data as Buffer).length;
  if (bytes !== VM_MIB << 20) throw new Error(`${bytes} bytes came of ${VM_MIB} MiB`);
  return bytes / 1000 / (performance.now() - began);
}

/** Median round trip, microseconds. */
async function ping(address: string): Promise<number> {
  const text = await must("busybox", ["ping", "-c", String(VM_PINGS), "-A", address]);
  return 1000 * median([...text.matchAll(/time=([\d.]+) ms/g)].map(([, ms]) => Number(ms)));
}
