import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Cri } from "./harness/cri.ts";
import { BUSYBOX } from "./harness/images.ts";
import { signal, until } from "./harness/processes.ts";
import { must } from "./harness/run-command.ts";
import { World } from "./harness/world.ts";

describe("a pod's network, as the CNI made it", () => {
  let world: World;
  let cri: Cri;
  let page: string;
  const content = "from inside of the VM\n".repeat(50_000);
  before(async () => {
    world = await World.start({ network: "tap" });
    cri = new Cri(world.containerd.address, join(world.folder, "logs"));
    page = join(world.folder, "page");
    mkdirSync(page);
    writeFileSync(join(page, "index.html"), content);
  });
  after(async () => {
    await cri.close();
    await world.untilNoVm();
    assert.deepEqual(world.leftovers(), []);
    await world.close();
  });

  async function serve(pod: string, name: string): Promise<void> {
    await cri.startContainer(pod, {
      name,
      image: BUSYBOX,
      command: ["httpd", "-f", "-p", "8080", "-h", "/page"],
      mounts: [{ containerPath: "/page", hostPath: page, readonly: true }],
    });
  }

  /** The bridge of this world's VMs and what hangs on it; none while there is no bridge. */
  async function vmLinks(): Promise<string[]> {
    const bridge = world.installation.bridges.adaptor;
    const all = JSON.parse(await must("ip", ["-json", "link", "show"])) as { ifname: string; master?: string }[];
    return all.filter((l) => l.ifname === bridge || l.master === bridge).map((l) => l.ifname);
  }

  const answered = (url: string): Promise<string> =>
    until(`an answer of ${url}`, 60_000, async () => {
      const response = await fetch(url, { signal: AbortSignal.timeout(5_000) }).catch(() => undefined);
      return response === undefined ? undefined : await response.text();
    });

  it("reaches the pod from the host and from another pod, and the host from the pod", async () => {
    const [a, b] = await Promise.all([cri.runPod({ name: "a" }), cri.runPod({ name: "b" })]);
    assert.equal(world.vms().length, 2);
    const [addressA, addressB] = [await cri.podAddress(a), await cri.podAddress(b)];
    await serve(a, "server");
    assert.equal(await answered(`http://${addressA}:8080/index.html`), content);

    const client = await cri.startContainer(b, { name: "client", image: BUSYBOX, command: ["sleep", "1000"] });
    const inB = async (...command: string[]): Promise<string> => {
      const answer = await cri.execSync(client, command);
      assert.equal(answer.exitCode, 0, `${command.join(" ")}: ${answer.stderr}${answer.stdout}`);
      return answer.stdout;
    };
    assert.match(
      await inB("ip", "-o", "-4", "address", "show", "eth0"),
      new RegExp(` ${addressB.replaceAll(".", "\\.")}/24 `),
    );
    const gateway = addressB.replace(/\d+$/, "1");
    assert.match(await inB("ip", "route", "show"), new RegExp(`^default via ${gateway} dev eth0`, "m"));
    const sum = createHash("md5").update(content).digest("hex");
    assert.match(await inB("sh", "-c", `wget -q -O - http://${addressA}:8080/index.html | md5sum`), new RegExp(sum));

    const server = createServer((request, response) => response.end(`host sees ${request.socket.remoteAddress}\n`));
    await new Promise<void>((resolve) => server.listen(0, gateway, resolve));
    const { port } = server.address() as { port: number };
    assert.equal(await inB("wget", "-q", "-O", "-", `http://${gateway}:${port}/`), `host sees ${addressB}\n`);
    await new Promise((resolve) => server.close(resolve));

    // Everything of it goes with the pods.
    assert.equal((await vmLinks()).length, 3, "a bridge with a tap device for each VM");
    await cri.removePod(a);
    await cri.removePod(b);
    await world.untilNoVm();
    await until("the links to be gone", 60_000, async () => (await vmLinks()).length === 0);
    assert.deepEqual(world.leftovers(), []);
    const taken = readFileSync(join(world.folder, "state", "node", "vnis.json"), "utf8");
    assert.deepEqual((JSON.parse(taken) as { taken: object }).taken, {});
  });

  it("leaves nothing of a pod whose node daemon was killed", async () => {
    const pod = await cri.runPod({ name: "killed" });
    const address = await cri.podAddress(pod);
    await serve(pod, "server");
    assert.equal(await answered(`http://${address}:8080/index.html`), content);
    signal(world.daemonPid() ?? assert.fail("no daemon runs"), "SIGKILL");
    await cri.removePod(pod);
    // The next pod brings the next daemon, which finishes what the dead one left.
    const next = await cri.runPod({ name: "next" });
    await serve(next, "server-next");
    assert.equal(await answered(`http://${await cri.podAddress(next)}:8080/index.html`), content);
    assert.equal(world.vms().length, 1);
    const { taken } = JSON.parse(readFileSync(join(world.folder, "state", "node", "vnis.json"), "utf8")) as {
      taken: object;
    };
    assert.equal(Object.keys(taken).length, 1);
    await cri.removePod(next);
    await world.untilNoVm();
  });
});
