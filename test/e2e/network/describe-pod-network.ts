import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { withDeadline } from "../../../src/base/call.ts";
import { signal, until } from "../harness/processes.ts";
import { CLUSTER_NAME, Fabric, OUTSIDE } from "./fabric.ts";
import { type NetworkPod, PAGE, PORTS, WorkerWorld, who } from "./network-pod.ts";
import { fragmentCounts, networkState } from "./network-state.ts";
import { peerHere, peerInPod, streamSum, udpAsk } from "./peer-program.ts";
import type { TunnelKind } from "./tunnel-kinds.ts";

/** By hand with 1024: an emulated guest sends some MB/s, and two share what there is. */
const TCP_MIB = Number(process.env.KATA_REMOTE_TEST_TCP_MIB ?? 16);
const ACROSS_MIB = Math.min(64, TCP_MIB / 2);
const SLOWEST_MS_PER_MIB = 8_000;
/** Bytes of UDP and of IP before a datagram's payload. */
const IP_AND_UDP = { 4: 28, 6: 48 } as const;
/** Of the bridge that provider local hangs its VMs on. */
const UNDERLAY_MTU = 9050;
const SERVICES = { far: "10.96.0.10", near: "10.96.0.11" } as const;

/** Two workers, three pods in VMs: what is promised of the pod network, for one kind of tunnel. */
export function describePodNetwork(kind: TunnelKind): void {
  describe(`pods on two workers, by ${kind.name}`, () => {
    let fabric: Fabric;
    const worlds: WorkerWorld[] = [];
    let untouched: readonly (readonly string[])[];
    let pods: Readonly<Record<"a1" | "a2" | "b1", NetworkPod>>;
    const a = (): WorkerWorld => worlds[0] ?? assert.fail("worker a did not start");
    const b = (): WorkerWorld => worlds[1] ?? assert.fail("worker b did not start");
    const onA = (...command: readonly string[]): Promise<string> =>
      fabric.on(a().worker, command, 60_000 + TCP_MIB * SLOWEST_MS_PER_MIB);

    before(async () => {
      fabric = await Fabric.make(SERVICES.far);
      untouched = await states();
      for (const worker of fabric.workers) worlds.push(await WorkerWorld.start(worker, kind));
      const [a1, a2, b1] = await Promise.all([
        a().pod("a1", TCP_MIB),
        a().pod("a2", TCP_MIB),
        b().pod("b1", ACROSS_MIB),
      ]);
      pods = { a1, a2, b1 };
    });
    after(async () => {
      // All of it ends, also when the end of something fails.
      await using stack = new AsyncDisposableStack();
      if (fabric !== undefined) stack.use(fabric);
      for (const world of worlds) stack.use(world);
    });

    const states = (): Promise<readonly (readonly string[])[]> =>
      Promise.all(fabric.workers.map((worker) => networkState(fabric, worker)));

    it("the pod IP answers its host, by HTTP and TCP, in both families", async () => {
      const { a1 } = pods;
      assert.equal(
        await onA("busybox", "wget", "-q", "-O", "-", `http://${a1.address}:${PORTS.http}/index.html`),
        PAGE,
      );
      const gateway6 = a().worker.podCidr6.replace("::/64", "::1");
      assert.equal(await onA("busybox", "wget", "-q", "-O", "-", who(a1.address6)), `a1 sees ${gateway6}\n`);
      const echo = `echo over TCP | busybox nc -w 20 ${a1.address} ${PORTS.echo}`;
      assert.equal(await onA("sh", "-c", echo), "over TCP\n");
    });

    it("pods reach each other with their own addresses, on one worker and across two, in both families", async () => {
      const { a1, a2, b1 } = pods;
      for (const [from, to] of [
        [a2, a1],
        [b1, a1],
        [a1, b1],
      ] as const) {
        assert.equal(await from.fetch(who(to.address)), `${to.name} sees ${from.address}\n`);
        assert.equal(await from.fetch(who(to.address6)), `${to.name} sees ${from.address6}\n`);
      }
    });

    it("names are looked up and the way out is found, through the worker's address translation", async () => {
      const { a1, b1 } = pods;
      const [workerA, workerB] = fabric.workers;
      assert.equal(await a1.fetch(`http://${OUTSIDE.name}:${OUTSIDE.port}/`), `outside sees ${workerA.address}\n`);
      assert.equal(await b1.fetch(`http://${OUTSIDE.address}:${OUTSIDE.port}/`), `outside sees ${workerB.address}\n`);
      assert.equal(
        await a1.fetch(`http://[${OUTSIDE.address6}]:${OUTSIDE.port}/`),
        `outside sees ${workerA.address6}\n`,
      );
      const asked = fabric.questions().filter((q) => q.name === OUTSIDE.name);
      assert.ok(asked.length > 0 && asked.every((q) => q.from === `${workerA.address}`), JSON.stringify(asked));
      assert.notEqual((await a1.try("nslookup", "nobody.example.test")).exitCode, 0);
    });

    it("a Service's address leads to its pod: from the host, from a pod here, there, and from that pod itself", async () => {
      const { a1, a2, b1 } = pods;
      await fabric.service(a().worker, { address: SERVICES.far, port: 80 }, `${b1.address}:${PORTS.http}`);
      await fabric.service(a().worker, { address: SERVICES.near, port: 80 }, `${a1.address}:${PORTS.http}`);
      assert.equal(
        await onA("busybox", "wget", "-q", "-O", "-", who(SERVICES.far, 80)),
        `b1 sees ${a().worker.address}\n`,
      );
      assert.equal(await a1.fetch(who(SERVICES.far, 80)), `b1 sees ${a1.address}\n`);
      // By the search domains of the pod's resolv.conf.
      assert.equal(await a1.fetch(who(CLUSTER_NAME.replace(/\..*/, ""), 80)), `b1 sees ${a1.address}\n`);
      assert.equal(await a2.fetch(who(SERVICES.near, 80)), `a1 sees ${a2.address}\n`);
      // To itself: where rules apply on the bridge, the frame comes back from the pod's own hardware address.
      const gateway = a().worker.podCidr.replace("0/24", "1");
      assert.equal(await a1.fetch(who(SERVICES.near, 80)), `a1 sees ${gateway}\n`);
    });

    it(`${TCP_MIB} MiB of TCP arrive whole out of a pod, ${ACROSS_MIB} from pod to pod across workers`, async () => {
      const { a1, b1 } = pods;
      const sum = (host: string): string => `busybox nc ${host} ${PORTS.stream} </dev/null | busybox md5sum`;
      const timed = async (what: string, mib: number, work: () => Promise<string>): Promise<void> => {
        const began = performance.now();
        assert.equal((await work()).split(" ")[0], streamSum(mib));
        const s = (performance.now() - began) / 1000;
        console.log(`${mib} MiB ${what} in ${s.toFixed(1)} s: ${(mib / s).toFixed(1)} MiB/s`);
      };
      await timed("from a pod to its host", TCP_MIB, () => onA("sh", "-c", sum(a1.address)));
      await timed("from pod to pod across workers", ACROSS_MIB, async () => {
        await a1.run("sh", "-c", `(${sum(b1.address)} >/sum.part; mv /sum.part /sum) >/dev/null 2>&1 &`);
        return await until("the stream to end", 60_000 + ACROSS_MIB * SLOWEST_MS_PER_MIB, async () => {
          const { exitCode, stdout } = await a1.try("cat", "/sum");
          return exitCode === 0 ? stdout : undefined;
        });
      });
    });

    it("an interface's MTU is what the tunnel leaves; a datagram as large as that passes unfragmented, no larger one", async () => {
      const { a1, a2, b1 } = pods;
      const mtu = async (pod: NetworkPod): Promise<number> => Number(await pod.run("cat", "/sys/class/net/eth0/mtu"));
      const [large, small] = [await mtu(a1), await mtu(b1)];
      assert.ok(kind.overheads.includes(UNDERLAY_MTU - large), `${large} of ${UNDERLAY_MTU} are left`);
      assert.equal(small, b().worker.podMtu, "the interface's own, where there is room");
      const before = await fragmentCounts(fabric);
      for (const [headers, address] of [
        [IP_AND_UDP[4], "address"],
        [IP_AND_UDP[6], "address6"],
      ] as const) {
        const ask = (to: NetworkPod, bytes: number) => udpAsk(to[address], PORTS.udp, bytes - headers);
        assert.equal(await onA(...peerHere(...ask(a1, large))), "same\n");
        assert.equal(await a2.run(...peerInPod(...ask(a1, large))), "same\n");
        assert.equal(await a2.run(...peerInPod(...ask(a1, large + 1))), "too big\n");
        assert.equal(await a1.run(...peerInPod(...ask(b1, small))), "same\n");
        // The worker says so, between the pod's large interface and the other worker.
        assert.equal(await a1.run(...peerInPod(...ask(b1, large))), "too big\n");
        assert.equal(await b1.run(...peerInPod(...ask(a1, small))), "same\n");
        assert.equal(await b1.run(...peerInPod(...ask(a1, small + 1))), "too big\n");
      }
      assert.deepEqual(await fragmentCounts(fabric), before);
    });

    const forwarded = async (): Promise<string> => {
      const { a1 } = pods;
      const port = PORTS.localHttp;
      const { url } = await a().cri.runtime.portForward({ podSandboxId: a1.id, port: [port] }, withDeadline(30_000));
      const client = join(import.meta.dirname, "port-forward-client.ts");
      return await onA(process.execPath, client, url, String(port), "/index.html");
    };

    it("a port of the pod's localhost is forwarded", async () => {
      assert.equal(await forwarded(), PAGE);
    });

    it("a daemon that comes after a killed one gives no number twice, and pods keep their network", async () => {
      const { a1, a2 } = pods;
      const taken = a().identities();
      assert.equal(taken.length, 2);
      signal(a().world.daemonPid() ?? assert.fail("no daemon runs"), "SIGKILL");
      const a3 = await a().pod("a3", 1);
      const now = a().identities();
      assert.equal(now.length, 3);
      assert.equal(new Set(now).size, 3);
      for (const number of taken) assert.ok(now.includes(number), `${number} of ${now}`);
      assert.equal(await a3.fetch(who(a1.address)), `a1 sees ${a3.address}\n`);
      assert.equal(await forwarded(), PAGE);
      assert.equal(await a2.fetch(who(a3.address6)), `a3 sees ${a2.address6}\n`);
    });

    it("what a pod had on its worker goes with it", async () => {
      for (const { cri, world } of worlds) {
        await cri.close();
        await world.untilNoVm();
      }
      await fabric.endServices();
      for (const [i, now] of (await states()).entries()) assert.deepEqual(now, untouched[i]);
      for (const { world } of worlds) assert.deepEqual(world.leftovers(), []);
      assert.deepEqual(
        worlds.map((world) => world.identities()),
        [[], []],
      );
    });
  });
}
