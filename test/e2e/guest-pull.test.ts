import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { busyboxLayer } from "../support/busybox-image.ts";
import { DockerRegistry } from "../support/docker-registry.ts";
import { GuestVm } from "../support/guest-vm.ts";
import { makeImage, makeLayer, ociArchive, type TestImage } from "../support/test-image.ts";
import { Cri } from "./harness/cri.ts";
import { buildVmImage, CACHE, VM_IMAGE } from "./harness/images.ts";
import { World } from "./harness/world.ts";

/** This machine as a VM behind QEMU's own network sees it. */
const HOST = "10.0.2.2";
/** CAP_SETUID, permitted and effective: a byte of it is no text. Source: linux/capability.h, vfs_cap_data version 2 */
const CAPABILITY = Buffer.from([1, 0, 0, 2, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);

describe("a pod VM that pulls its images", () => {
  let home: string;
  let registry: DockerRegistry;
  let vm: GuestVm;
  let base: Buffer;
  before(async () => {
    await buildVmImage();
    home = mkdtempSync(join(tmpdir(), "gp-"));
    mkdirSync(join(home, "registry"));
    registry = await DockerRegistry.start(join(home, "registry"), [HOST]);
    vm = await GuestVm.boot(VM_IMAGE, CACHE, { outbound: true });
    base = await busyboxLayer([
      { name: "gone", content: "of the lower layer" },
      { name: "data/", type: "directory", mode: 0o2770, uid: 7, gid: 8 },
      { name: "data/lower", content: "lower" },
      { name: "kept/", type: "directory", mode: 0o711, uid: 9, gid: 9 },
    ]);
    await settings();
  });
  after(async () => {
    await vm?.[Symbol.asyncDispose]();
    await registry?.[Symbol.asyncDispose]();
    rmSync(home, { recursive: true });
  });

  const settings = async (login = registry.login): Promise<void> => {
    const host = `${HOST}:${registry.port}`;
    const value = { auths: { [host]: login }, registries: { [host]: { caPem: registry.caPem } }, stallMs: 20_000 };
    await vm.guest.setImageSettings({ settingsJson: JSON.stringify(value) });
  };
  const push = async (name: string, image: TestImage): Promise<string> => {
    await registry.push(name, "1", image);
    return `${HOST}:${registry.port}/${name}:1`;
  };

  it("runs a container from layers as they are meant, over TLS and with a login", async () => {
    const upper = await makeLayer([
      { name: ".wh.gone" },
      { name: "data/", type: "directory", mode: 0o2770, uid: 7, gid: 8 },
      { name: "data/.wh..wh..opq" },
      { name: "data/upper", content: "upper", mode: 0o640, uid: 7, gid: 8, mtime: new Date(1_600_000_000_000) },
      { name: "data/again", type: "link", linkname: "data/upper" },
      { name: "kept/new", content: "new" },
      { name: "pipe", type: "fifo", mode: 0o600 },
      { name: "opt/", type: "directory", mode: 0o755 },
      { name: "opt/busybox", mode: 0o755, content: readFileSync("/bin/busybox") },
    ]);
    const image = makeImage([base, withXattr(upper, "opt/busybox", "security.capability", CAPABILITY)]);
    const source = await push("team/app", image);
    const script = `
      test -e /gone && echo gone is there
      ls /data; cat /data/upper; echo
      stat -c '%a %u:%g %Y %h' /data/upper; stat -c '%a %u:%g' /data /kept
      stat -c %F /pipe
      su nobody -s /bin/sh -c true 2>/dev/null
      echo own > /data/mine; ls /data`;
    const { out, err } = await vm.shell("layers", script, { image: { source } });
    assert.equal(err, "");
    assert.deepEqual(out.trim().split("\n"), [
      ...["again", "upper", "upper", "640 7:8 1600000000 2", "2770 7:8", "711 9:9", "fifo", "again", "mine", "upper"],
    ]);
    const capable = await vm.shell("caps", "exec /opt/busybox grep CapEff /proc/self/status", {
      ...{ image: { source, driverOptions: [`kata-remote.digest=${image.digest}`] }, uid: 1000 },
    });
    assert.match(capable.out, /CapEff:\s+0000000000000080/);
    assert.equal(registry.log.match(/"GET \S+blobs\/sha256:\w+ HTTP.*" 200/g)?.length, 4, "config twice, layers once");
  });

  it("says what is wrong with a layer, a login, an image; the next pull works", async () => {
    const image = makeImage([base, await makeLayer([{ name: "x", content: randomBytes(200_000) }])]);
    const source = await push("team/broken", image);
    const refusal = async (id: string, from = source): Promise<string> =>
      await vm.run(id, ["true"], { image: { source: from } }).then(
        () => assert.fail("it was created"),
        (e: unknown) => (e as Error).message,
      );
    const file = registry.blobFile(image.layers[1] as string);
    copyFileSync(file, `${file}.good`);
    const bytes = readFileSync(file);
    bytes.writeUInt8((bytes[100_000] as number) ^ 4, 100_000);
    writeFileSync(file, bytes);
    const tampered = await refusal("broken");
    assert.match(
      tampered,
      new RegExp(`layer ${image.layers[1]} of ${source.replaceAll(".", "\\.")} .*tampered with or damaged`),
    );
    copyFileSync(`${file}.good`, file);
    await settings({ ...registry.login, password: "expired" });
    assert.match(
      await refusal("broken"),
      /refuses the pull secret's login for team\/broken: it is wrong or has expired/,
    );
    await settings();
    assert.match(await refusal("broken", `${HOST}:${registry.port}/team/none:1`), /has no team\/none\/manifests\/1/);
    const foreign = await push("team/foreign", makeImage([base], { architecture: "riscv64" }));
    assert.match(
      await refusal("broken", foreign),
      /nothing for linux\/\w+, which the pod VM is: it has linux\/riscv64/,
    );
    const { out } = await vm.shell("broken", "wc -c < /x", { image: { source } });
    assert.equal(out.trim(), "200000");
  });

  it("names the disk that is full, and pulls when there is room again", async () => {
    const source = await push(
      "team/large",
      makeImage([base, await makeLayer([{ name: "y", content: randomBytes(40 << 20) }])], { compression: "none" }),
    );
    // The disk takes what a container writes as well.
    await vm.run("hog", [
      "sh",
      "-c",
      "set -- $(df -k / | tail -1); fallocate -l $(($4 - 20480))k /hog && echo full; sleep 1000",
    ]);
    const { data } = await vm.agent.readStdout({ containerId: "hog", execId: "hog", len: 100 });
    assert.equal(Buffer.from(data).toString(), "full\n");
    await assert.rejects(
      vm.run("large", ["true"], { image: { source } }),
      /needs more than 41 MiB, the pod VM's disk has \d+ MiB free/,
    );
    await vm.remove("hog");
    const { out } = await vm.shell("large", "wc -c < /y", { image: { source } });
    assert.equal(out.trim(), String(40 << 20));
  });

  it("stays small while it pulls", async () => {
    const source = await push(
      "team/heavy",
      makeImage([base, await makeLayer([{ name: "z", content: randomBytes(32 << 20) }])]),
    );
    const rss = async (): Promise<number> => Number((await vm.guest.info({})).guestProcessRssBytes) / 2 ** 20;
    const before = await rss();
    let peak = 0;
    const pulled = vm.shell("heavy", "wc -c < /z", { image: { source } });
    let seen = 0n;
    let done = false;
    const watching = (async () => {
      while (!done) {
        peak = Math.max(peak, await rss());
        const [pull] = (await vm.guest.listPulls({})).pulls;
        if (pull !== undefined && pull.bytes > seen) seen = pull.bytes;
      }
    })();
    const { out } = await pulled.finally(() => {
      done = true;
    });
    await watching;
    console.log(
      `guest process: ${before.toFixed(1)} MiB before, at most ${peak.toFixed(1)} MiB while it pulled 32 MiB`,
    );
    assert.equal(out.trim(), String(32 << 20));
    assert.ok(seen > 0n, "its progress can be asked for");
    assert.ok(peak < before + 40, `${peak} MiB, ${before} MiB before`);
  });

  it("gives a container up that is removed while its image comes", async () => {
    const source = await push(
      "team/slow",
      makeImage([base, await makeLayer([{ name: "s", content: randomBytes(1000) }])]),
    );
    registry.pause();
    try {
      const created = vm.run("slow", ["true"], { image: { source } }).then(
        () => assert.fail("it was created"),
        (e: unknown) => (e as Error).message,
      );
      for (let pulls = 0; pulls === 0; ) pulls = (await vm.guest.listPulls({})).pulls.length;
      await vm.remove("slow");
      assert.match(await created, /container slow is removed/);
    } finally {
      registry.resume();
    }
    const { code } = await vm.shell("slow", "test -s /s", { image: { source } });
    assert.equal(code, 0);
  });
});

describe("pods whose images their VM pulls, through the CRI plugin", () => {
  let home: string;
  let registry: DockerRegistry;
  let world: World;
  let cri: Cri;
  let name: string;
  let image: TestImage;
  before(async () => {
    home = mkdtempSync(join(tmpdir(), "gp-"));
    mkdirSync(join(home, "registry"));
    registry = await DockerRegistry.start(join(home, "registry"), [HOST]);
    const host = `${HOST}:${registry.port}`;
    const [caFile, authFile] = [join(home, "ca.pem"), join(home, "auth.json")];
    writeFileSync(caFile, registry.caPem);
    writeFileSync(authFile, JSON.stringify({ auths: { [host]: registry.login } }));
    const images = {
      authFile,
      registries: { [host]: { caFile } },
      nameservers: [],
      stallMs: 20_000,
      attempts: 3,
      pullTimeoutMs: 300_000,
    };
    world = await World.start({ network: "user", outbound: true, shim: { images } });
    cri = new Cri(world.containerd.address, join(world.folder, "logs"));
    name = `${host}/team/web:1`;
    image = makeImage([await busyboxLayer([{ name: "version", content: "first" }])]);
    await registry.push("team/web", "1", image);
    await onNode(image, name);
  });
  after(async () => {
    await cri?.close();
    await world?.untilNoVm();
    const left = world?.leftovers();
    await world?.close();
    await registry?.[Symbol.asyncDispose]();
    rmSync(home, { recursive: true });
    assert.deepEqual(left, []);
  });

  const onNode = async (what: TestImage, as: string): Promise<void> => {
    const archive = join(home, "image.tar");
    writeFileSync(archive, await ociArchive(what, as));
    await world.containerd.ctr(["images", "import", archive], { namespace: "k8s.io" });
  };
  const annotations = { "io.katacontainers.config.runtime.experimental_force_guest_pull": "true" };
  const command = ["sleep", "1000"];

  it("run what the node found the image's name to mean, without the node's root file system", async () => {
    // The tag moves on behind the node's back.
    await registry.push("team/web", "1", makeImage([await busyboxLayer([{ name: "version", content: "second" }])]));
    const pod = await cri.runPod({ name: "pulls", annotations });
    const [first, second] = [
      await cri.startContainer(pod, { name: "one", image: name, command }),
      await cri.startContainer(pod, { name: "two", image: name, command }),
    ];
    assert.equal((await cri.execSync(first, ["cat", "/version"])).stdout, "first");
    await cri.execSync(first, ["sh", "-c", "echo changed > /version"]);
    assert.equal((await cri.execSync(second, ["cat", "/version"])).stdout, "first", "each has its own changes");
    const { containers } = await world.sandbox(pod, "k8s.io");
    assert.deepEqual(
      containers.map((c) => c.rootfs),
      ["guest", "guest", "guest"],
    );
    const pulls = registry.log.split("\n").filter((line) => line.includes(`GET /v2/team/web/blobs/${image.layers[0]}`));
    assert.equal(pulls.filter((line) => line.includes('HTTP/1.1" 200')).length, 1, "the layer came once");
    await cri.removePod(pod);
  });

  it("say in the container's error why an image did not come, and run the next one", async () => {
    const pod = await cri.runPod({ name: "refused", annotations });
    const broken = makeImage([await busyboxLayer([{ name: "version", content: "never pushed" }])]);
    await onNode(broken, `${HOST}:${registry.port}/team/broken:1`);
    await assert.rejects(
      cri.startContainer(pod, { name: "broken", image: `${HOST}:${registry.port}/team/broken:1`, command }),
      /image 10\.0\.2\.2:\d+\/team\/broken:1@sha256:\w+ was not pulled into the pod VM: registry .* has no team\/broken/,
    );
    await onNode(image, name);
    const next = await cri.startContainer(pod, { name: "next", image: name, command });
    assert.equal((await cri.execSync(next, ["cat", "/version"])).stdout, "first");
    await cri.removePod(pod);
  });
});

/** tar-stream takes texts only for extended attributes: the archive gets the header in front of the entry by hand. */
function withXattr(layer: Buffer, name: string, key: string, value: Buffer): Buffer {
  let at = 0;
  while (layer.toString("latin1", at, at + name.length + 1) !== `${name}\0`) at += 512;
  const record = Buffer.concat([Buffer.from(`SCHILY.xattr.${key}=`), value, Buffer.from("\n")]);
  const length = [2, 3]
    .map((digits) => record.length + digits + 1)
    .find((n) => String(n).length === n - record.length - 1);
  const body = Buffer.concat([Buffer.from(`${length} `), record]);
  const header = Buffer.alloc(512);
  header.write("PaxHeader", 0);
  for (const [offset, text] of [
    [100, "0000644\0"],
    [108, "0000000\0"],
    [116, "0000000\0"],
    [136, "00000000000\0"],
  ] as const)
    header.write(text, offset);
  header.write(`${body.length.toString(8).padStart(11, "0")}\0`, 124);
  header.write("        x", 148);
  header.write("ustar\x0000", 257);
  const sum = header.reduce((a, b) => a + b, 0);
  header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  const padded = Buffer.concat([body, Buffer.alloc((512 - (body.length % 512)) % 512)]);
  return Buffer.concat([layer.subarray(0, at), header, padded, layer.subarray(at)]);
}
