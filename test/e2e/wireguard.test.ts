import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { hostName } from "../../src/node/podnetwork/wireguard/index.ts";
import { framesOf, udpOf } from "../support/pcap.ts";
import { Cri } from "./harness/cri.ts";
import { BUSYBOX } from "./harness/images.ts";
import { listProcesses, signal, until } from "./harness/processes.ts";
import { start } from "./harness/run-command.ts";
import { World } from "./harness/world.ts";

const PORT = 51_871;
const SECRET = "nobody on the way reads this";
const CONTENT = `${SECRET}, from inside of the VM\n`.repeat(2_000);
/** Enough of each packet to see what it is, and whether it can be read. */
const SNAP_BYTES = 2048;
/** How long a handshake that was lost may take to be tried again, on a busy machine too, ms. */
const PATIENCE_MS = 120_000;

/** This host's kernel may have WireGuard or not; the guest's has it. */
describe("a pod's network inside of WireGuard", () => {
  let world: World;
  let cri: Cri;
  before(async () => {
    world = await World.start({ network: "tap", podNetwork: { tunnel: "wireguard", port: PORT } });
    cri = new Cri(world.containerd.address, join(world.folder, "logs"));
  });
  after(async () => {
    await cri.close();
    await world.untilNoVm();
    assert.deepEqual(world.leftovers(), []);
    await world.close();
  });

  /** What the node keeps of each link: its path. */
  function records(): string[] {
    const dir = join(world.folder, "state", "node", "wireguard");
    return existsSync(dir) ? readdirSync(dir).map((name) => join(dir, name)) : [];
  }
  /** Of a sandbox's link, where the host's kernel has no WireGuard. */
  const carrier = (sandboxId: string): number | undefined =>
    listProcesses().find(({ command }) => command === `wireguard-go -f ${hostName(sandboxId)}`)?.pid;

  async function serve(pod: string): Promise<void> {
    const page = join(world.folder, "page");
    mkdirSync(page, { recursive: true });
    writeFileSync(join(page, "index.html"), CONTENT);
    await cri.startContainer(pod, {
      name: "server",
      image: BUSYBOX,
      command: ["httpd", "-f", "-p", "8080", "-h", "/page"],
      mounts: [{ containerPath: "/page", hostPath: page, readonly: true }],
    });
  }

  const answered = (url: string): Promise<string> =>
    until(`an answer of ${url}`, PATIENCE_MS, async () => {
      const response = await fetch(url, { signal: AbortSignal.timeout(10_000) }).catch(() => undefined);
      return response === undefined ? undefined : await response.text();
    });

  /** What passes the bridge of this world's VMs while something is done. */
  async function captured(work: () => Promise<void>): Promise<readonly Buffer[]> {
    const file = join(world.folder, "capture");
    const options = ["-Z", "root", "-U", "--immediate-mode", "-B", "16384", "-s", String(SNAP_BYTES), "-w", file];
    const sniffer = start("tcpdump", ["-i", world.installation.bridges.adaptor, ...options]);
    await until("the capture to begin", 30_000, () => existsSync(file) && statSync(file).size > 0);
    try {
      await work();
    } finally {
      sniffer.child.kill("SIGINT");
      await sniffer.done;
    }
    return framesOf(readFileSync(file));
  }

  it("answers at the pod's IP, is not to be read on the way, outlives daemon and process, and leaves nothing", async () => {
    const pod = await cri.runPod({ name: "a" });
    const url = `http://${await cri.podAddress(pod)}:8080/index.html`;
    const { sandboxId } = await world.sandbox(pod, "k8s.io");
    await serve(pod);
    assert.equal(await answered(url), CONTENT);

    const frames = await captured(async () => assert.equal(await answered(url), CONTENT));
    const ours = frames.flatMap((frame) => {
      const udp = udpOf(frame);
      return udp !== undefined && (udp.from === PORT || udp.to === PORT) ? [udp.payload] : [];
    });
    const bytes = ours.reduce((sum, payload) => sum + payload.length, 0);
    assert.ok(bytes > CONTENT.length, `${bytes} bytes of WireGuard for ${CONTENT.length}`);
    // Data of an established link begins with 4, 0, 0, 0. Source: the WireGuard paper, §5.4
    for (const payload of ours) assert.ok([1, 2, 3, 4].includes(payload.readUInt32LE(0)), payload.toString("hex"));
    assert.equal(frames.filter((frame) => frame.includes(SECRET)).length, 0);
    assert.equal(frames.filter((frame) => [4789, 8472].includes(udpOf(frame)?.to ?? 0)).length, 0);

    const [record = assert.fail("the node keeps a record")] = records();
    assert.equal(statSync(record).mode & 0o777, 0o600);
    const { privateKey } = JSON.parse(readFileSync(record, "utf8")) as { privateKey: string };
    for (const name of ["adaptor", "node"]) assert.ok(!world.log(name).includes(privateKey));

    signal(world.daemonPid() ?? assert.fail("a daemon runs"), "SIGKILL");
    assert.equal(await answered(url), CONTENT);
    const before = carrier(sandboxId);
    if (before !== undefined) {
      await until("the next daemon", PATIENCE_MS, () => world.daemonPid() !== undefined);
      signal(before, "SIGKILL");
      await until("the process to be started again", PATIENCE_MS, () => {
        const now = carrier(sandboxId);
        return now !== undefined && now !== before;
      });
      assert.equal(await answered(url), CONTENT);
    }

    await cri.removePod(pod);
    await world.untilNoVm();
    await until("the link to be gone", PATIENCE_MS, () => records().length === 0);
    assert.equal(carrier(sandboxId), undefined);
    assert.equal(existsSync(join("/var/run/wireguard", `${hostName(sandboxId)}.sock`)), false);
  });
});
