import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { createSocket } from "node:dgram";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { FakeRegistry, type RegistryOptions, sendFrom } from "../../../test/fakes/registry.ts";
import { makeImage, makeIndex, makeLayer } from "../../../test/support/test-image.ts";
import { background, withDeadline } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { Storage } from "../../gen/agent/agent.ts";
import type { ImageSettings } from "../../guestwire/index.ts";
import { GuestImages } from "./index.ts";

const home = mkdtempSync(join(tmpdir(), "guest-images-"));
after(() => rmSync(home, { recursive: true }));

const storage = (source: string, ...driverOptions: string[]): Storage =>
  Storage.fromPartial({ driver: "image_guest_pull", source, driverOptions });

/** Images in a directory of their own, that know the registries as ones without TLS. */
function images(registries: readonly FakeRegistry[], settings: ImageSettings = {}, lingerMs = 60_000) {
  const disk = mkdtempSync(join(home, "disk-"));
  const log: string[] = [];
  const line = (message: string, fields?: object): unknown => log.push(`${message} ${JSON.stringify(fields)}`);
  const options = { disk, lingerMs, authFile: `${disk}.auth.json`, settingsFile: `${disk}.images.json` };
  const guest = new GuestImages({ ...options, log: { info: line, warn: line, error: line } });
  const plain = Object.fromEntries(registries.map((r) => [r.host, { plainHttp: true }]));
  guest.setSettings(
    JSON.stringify({ stallMs: 500, attempts: 3, ...settings, registries: { ...plain, ...settings.registries } }),
  );
  const left = (): string[] => (existsSync(`${disk}/l`) ? readdirSync(`${disk}/l`) : []);
  return { guest, disk, log, left };
}

/** What the error says, as a kubelet shows it. */
async function refusal(work: Promise<unknown>): Promise<string> {
  return await work.then(
    () => assert.fail("it was pulled"),
    (e: unknown) => Fault.from(e).fullMessage,
  );
}

const random = (bytes: number): Buffer => randomBytes(bytes);
const base = await makeLayer([
  { name: "etc/", type: "directory" },
  { name: "etc/os", content: "small" },
]);
const big = await makeLayer([{ name: "big", content: random(3_000_000) }]);

describe("an image that the guest pulls", () => {
  it("is there with every layer once, lowest last, whatever it is compressed with", async () => {
    await using registry = await FakeRegistry.start();
    for (const compression of ["gzip", "zstd", "none"] as const) {
      const { guest, left } = images([registry]);
      const name = registry.add("team/app", compression, makeImage([base, big], { compression }));
      await guest.prepare(storage(name), "a", background());
      const [upper, lower] = guest.lowerDirectories("a") as [string, string];
      assert.equal(readFileSync(`${lower}/etc/os`, "utf8"), "small");
      assert.equal(statSync(`${upper}/big`).size, 3_000_000);
      await guest.prepare(storage(name), "b", background());
      assert.deepEqual(guest.lowerDirectories("b"), [upper, lower]);
      assert.equal(left().length, 2);
    }
  });

  it("is the one of this machine's platform, and says so when there is none", async () => {
    await using registry = await FakeRegistry.start();
    const { guest } = images([registry]);
    const here = process.arch === "x64" ? "amd64" : process.arch;
    const mine = makeImage([base]);
    registry.add("app", "mine", mine);
    const other = makeImage([big], { architecture: "s390x" });
    registry.add("app", "other", other);
    const both = registry.add(
      "app",
      "both",
      makeIndex([
        { image: other, architecture: "s390x" },
        { image: mine, architecture: here },
      ]),
    );
    await guest.prepare(storage(both), "a", background());
    assert.equal(readFileSync(`${guest.lowerDirectories("a")[0]}/etc/os`, "utf8"), "small");
    const none = registry.add("app", "none", makeIndex([{ image: other, architecture: "s390x" }]));
    assert.match(
      await refusal(guest.prepare(storage(none), "b", background())),
      /nothing for linux\/\w+.* has linux\/s390x/,
    );
    const direct = registry.add("app", "direct", other);
    assert.match(await refusal(guest.prepare(storage(direct), "b", background())), /nothing for linux\//);
  });

  it("is the one that the node found, and no other", async () => {
    await using registry = await FakeRegistry.start();
    const { guest } = images([registry]);
    const first = makeImage([base]);
    const second = makeImage([big]);
    registry.add("app", "old", first);
    const name = registry.add("app", "tag", second);
    await guest.prepare(storage(name, `kata-remote.digest=${first.digest}`), "a", background());
    assert.ok(existsSync(`${guest.lowerDirectories("a")[0]}/etc/os`), "the tag moved since");
    const conflict = storage(`${name}@${second.digest}`, `kata-remote.digest=${first.digest}`);
    assert.match(await refusal(guest.prepare(conflict, "b", background())), /do not mean the same image/);
    const missing = storage(`${name}@sha256:${"0".repeat(64)}`);
    assert.match(await refusal(guest.prepare(missing, "b", background())), /has no app\/manifests\/sha256:0000/);
    assert.match(
      await refusal(guest.prepare(storage(`sha256:${"0".repeat(64)}`), "b", background())),
      /names no repository/,
    );
  });

  it("of the pod itself is part of the guest", async () => {
    const { guest } = images([]);
    const metadata = { metadata: { "io.kubernetes.cri.container-type": "sandbox" } };
    const pause = storage("pause", `image_guest_pull=${JSON.stringify(metadata)}`);
    await guest.prepare(pause, "pod", background());
    assert.ok(existsSync(`${guest.lowerDirectories("pod")[0]}/bin/sh`));
    const { Process } = await import("../../gen/agent/oci.ts");
    assert.equal(guest.processOf([pause], Process.fromPartial({ Args: ["/pause"], Cwd: "/x" })).Args[0], "/bin/sh");
    assert.deepEqual(guest.processOf([], Process.fromPartial({ Args: ["/app"] })).Args, ["/app"]);
  });
});

describe("a registry that misbehaves", () => {
  async function world(options: RegistryOptions = {}, settings: ImageSettings = {}) {
    const registry = await FakeRegistry.start(options);
    const image = makeImage([big], { compression: "none" });
    const name = registry.add("team/app", "1", image);
    return { registry, image, name, ...images([registry], settings), layer: image.layers[0] as string };
  }

  it("goes on where it broke off or fell silent, without a byte twice", async () => {
    const { registry, guest, name, layer } = await world();
    await using _ = registry;
    let times = 0;
    registry.misbehave = (asked, response, bytes) => {
      if (!asked.path.endsWith(layer)) return false;
      times += 1;
      if (times > 2) return false;
      const start = Number(/\d+/.exec(asked.range ?? "0")?.[0]);
      response.writeHead(start === 0 ? 200 : 206, {
        "content-length": bytes.length - start,
        ...(start === 0 ? {} : { "content-range": `bytes ${start}-${bytes.length - 1}/${bytes.length}` }),
      });
      response.write(bytes.subarray(start, start + 1_000_000), () => {
        if (times === 1) response.destroy();
      });
      return true;
    };
    registry.asked.length = 0;
    await guest.prepare(storage(name), "a", background());
    const ranges = registry.asked.filter((a) => a.path.endsWith(layer)).map((a) => a.range);
    assert.equal(ranges.length, 3);
    assert.match(ranges[1] ?? "", /^bytes=\d+-$/);
    assert.notEqual(ranges[1], ranges[2]);
  });

  it("may not know ranges", async () => {
    const { registry, guest, name, layer } = await world();
    await using _ = registry;
    let broken = false;
    registry.misbehave = (asked, response, bytes) => {
      if (!asked.path.endsWith(layer)) return false;
      response.writeHead(200, { "content-length": bytes.length });
      if (broken) response.end(bytes);
      else response.write(bytes.subarray(0, 100_000), () => response.destroy());
      broken = true;
      return true;
    };
    await guest.prepare(storage(name), "a", background());
    assert.equal(statSync(`${guest.lowerDirectories("a")[0]}/big`).size, 3_000_000);
  });

  it("is given up when it stays silent; the next pull works and nothing is left of the first", async () => {
    const { registry, guest, name, layer, left } = await world();
    await using _ = registry;
    registry.misbehave = (asked, response, bytes) => {
      if (!asked.path.endsWith(layer)) return false;
      const start = Number(/\d+/.exec(asked.range ?? "0")?.[0]);
      response.writeHead(206, { "content-range": `bytes ${start}-${bytes.length - 1}/${bytes.length}` });
      response.write(bytes.subarray(start, start + 1000));
      return true;
    };
    const said = await refusal(guest.prepare(storage(name), "a", background()));
    assert.match(
      said,
      new RegExp(`layer ${layer} of .* stopped at byte 3000 of ${big.length}.*stalled: nothing came for 0.5 s`),
    );
    assert.deepEqual(left(), []);
    registry.misbehave = undefined;
    await guest.prepare(storage(name), "a", background());
  });

  it("cannot send another layer than the image's, compressed or not", async () => {
    await using registry = await FakeRegistry.start();
    const { guest, left } = images([registry]);
    for (const compression of ["none", "gzip", "zstd"] as const) {
      const content = await makeLayer([{ name: "big", content: random(1_000_000) }]);
      const image = makeImage([content], { compression });
      const name = registry.add("app", compression, image);
      const layer = image.layers[0] as string;
      registry.misbehave = (asked, response, bytes) => {
        if (!asked.path.endsWith(layer)) return false;
        const other = Buffer.from(bytes);
        other.writeUInt8((other[1000] as number) ^ 1, 1000);
        sendFrom(other, asked.range, response);
        return true;
      };
      const said = await refusal(guest.prepare(storage(name), "a", background()));
      assert.match(said, new RegExp(`layer ${layer} of .*: it was tampered with or damaged`), said);
      const before = left().length;
      registry.misbehave = undefined;
      await guest.prepare(storage(name), compression, background());
      assert.equal(left().length, before + 1);
    }
  });

  it("cannot pass other content, a longer layer or another config for the image's", async () => {
    await using registry = await FakeRegistry.start();
    const { guest, left } = images([registry]);
    const wrongId = registry.add("app", "id", makeImage([base], { diffIds: [`sha256:${"1".repeat(64)}`] }));
    assert.match(await refusal(guest.prepare(storage(wrongId), "a", background())), /content of layer .* has sha256/);
    const image = makeImage([big], { compression: "none" });
    const name = registry.add("app", "1", image);
    registry.misbehave = (asked, response, bytes) => {
      if (!asked.path.endsWith(image.layers[0] as string)) return false;
      response.end(Buffer.concat([bytes, Buffer.alloc(10)]));
      return true;
    };
    assert.match(await refusal(guest.prepare(storage(name), "a", background())), /longer than the \d+ bytes/);
    registry.misbehave = (asked, response) => {
      if (asked.path.endsWith(image.layers[0] as string)) return false;
      response.end('{"rootfs":{}}');
      return true;
    };
    assert.match(await refusal(guest.prepare(storage(name), "a", background())), /the config of image .* tampered/);
    assert.deepEqual(left(), []);
  });

  it("is asked for a new token when one has expired, and named when it refuses the login", async () => {
    const options = { login: "user:pa:ss", scheme: "bearer", tokenUses: 2 } as const;
    const { registry, guest, name } = await world(options);
    await using _ = registry;
    assert.match(await refusal(guest.prepare(storage(name), "a", background())), /wants a login for team\/app.*none/);
    const login = (password: string): ImageSettings => ({
      auths: { [registry.host]: { auth: Buffer.from(`user:${password}`).toString("base64") } },
      registries: { [registry.host]: { plainHttp: true } },
    });
    guest.setSettings(JSON.stringify(login("old")));
    const said = await refusal(guest.prepare(storage(name), "a", background()));
    assert.match(said, /refuses the pull secret's login for team\/app: it is wrong or has expired/);
    assert.doesNotMatch(said, /old|dXNlcjp/, "no secret in the message");
    registry.tokenRequests.length = 0;
    guest.setSettings(JSON.stringify(login("pa:ss")));
    await guest.prepare(storage(name), "a", background());
    assert.equal(registry.tokenRequests.length, 2, "manifest and config with one token, the layer with the next");
    assert.equal(registry.tokenRequests[0]?.searchParams.get("service"), "fake, registry");
    assert.equal(registry.tokenRequests[0]?.searchParams.get("scope"), "repository:team/app:pull");
  });

  it("takes user and password; a store of blobs elsewhere does not get them", async () => {
    await using store = await FakeRegistry.start();
    await using registry = await FakeRegistry.start({ login: "u:p", blobsAt: `http://${store.host}` });
    const image = makeImage([base]);
    const name = registry.add("app", "1", image);
    store.add("app", "1", image);
    const auths = { [`https://${registry.host}/v1/`]: { username: "u", password: "p" } };
    const { guest } = images([registry, store], { auths });
    await guest.prepare(storage(name), "a", background());
    assert.ok(store.asked.length >= 2);
    assert.deepEqual([...new Set(store.asked.map((a) => a.authorization))], [undefined]);
    const plain = images([registry], { auths });
    assert.match(await refusal(plain.guest.prepare(storage(name), "a", background())), /has no TLS/);
  });

  it("may be found by a name server of its own", async () => {
    await using registry = await FakeRegistry.start();
    registry.add("app", "1", makeImage([base]));
    const asked: string[] = [];
    const dns = createSocket("udp4", (question, from) => {
      // One question: its name begins behind the header of 12 bytes, type and class follow its end.
      const end = question.indexOf(0, 12);
      asked.push(question.toString("latin1", 13, end));
      const isA = question.readUInt16BE(end + 1) === 1;
      const header = Buffer.from([0x81, 0x80, 0, 1, 0, isA ? 1 : 0, 0, 0, 0, 0]);
      const record = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
      const reply = [question.subarray(0, 2), header, question.subarray(12, end + 5), ...(isA ? [record] : [])];
      dns.send(Buffer.concat(reply), from.port, from.address);
    });
    await new Promise<void>((resolve) => dns.bind(0, "127.0.0.1", resolve));
    try {
      const host = `registry.kata:${registry.host.split(":")[1]}`;
      const { guest } = images([registry], {
        nameservers: [`127.0.0.1:${dns.address().port}`],
        registries: { [host]: { plainHttp: true } },
      });
      await guest.prepare(storage(`${host}/app:1`), "a", background());
      assert.ok(asked.includes("registry\x04kata"), JSON.stringify(asked));
      assert.match(await refusal(guest.prepare(storage("other.test/app:1"), "b", background())), /cannot be reached/);
    } finally {
      dns.close();
    }
  });

  it("may be known from the image and the stock adaptor's files alone", async () => {
    await using registry = await FakeRegistry.start({ login: "u:p" });
    const name = registry.add("app", "1", makeImage([base]));
    const { guest, disk } = images([]);
    guest.setSettings("{}");
    assert.match(
      await refusal(guest.prepare(storage(name), "a", background())),
      /cannot be reached|no TLS|not trusted/,
    );
    writeFileSync(`${disk}.images.json`, JSON.stringify({ registries: { [registry.host]: { plainHttp: true } } }));
    writeFileSync(
      `${disk}.auth.json`,
      JSON.stringify({ auths: { [registry.host]: { username: "u", password: "p" } } }),
    );
    await guest.prepare(storage(name), "a", background());
  });

  it("stands behind its mirrors, which are not trusted and do not get its login", async () => {
    await using mirror = await FakeRegistry.start();
    await using registry = await FakeRegistry.start({ login: "u:p" });
    const image = makeImage([base, big], { compression: "none" });
    const name = registry.add("app", "1", image);
    mirror.add("app", "1", image);
    mirror.misbehave = (asked, response, bytes) => {
      if (!asked.path.endsWith(image.layers[1] as string)) return false;
      sendFrom(Buffer.alloc(bytes.length), asked.range, response);
      return true;
    };
    const { guest } = images([registry, mirror], {
      auths: { [registry.host]: { username: "u", password: "p" } },
      registries: { [registry.host]: { plainHttp: true, mirrors: [`http://${mirror.host}`] } },
    });
    await guest.prepare(storage(name), "a", background());
    const blobs = registry.asked.filter((a) => a.path.includes("/blobs/") && a.authorization !== undefined);
    assert.deepEqual(
      blobs.map((a) => a.path.split("/").at(-1)),
      [image.layers[1]],
    );
    assert.ok(mirror.asked.every((a) => a.authorization === undefined));
  });
});

describe("a pull", () => {
  it("is shared by the containers that want it, goes on without them for a while, and then ends", async () => {
    await using registry = await FakeRegistry.start();
    const image = makeImage([big], { compression: "none" });
    const name = registry.add("app", "1", image);
    let open = (): void => undefined;
    registry.misbehave = (asked, response, bytes) => {
      if (!asked.path.endsWith(image.layers[0] as string)) return false;
      response.writeHead(200, { "content-length": bytes.length });
      response.write(bytes.subarray(0, 500_000));
      open = () => response.end(bytes.subarray(500_000));
      return true;
    };
    const { guest, left } = images([registry], { stallMs: 5000 }, 300);
    const first = refusal(guest.prepare(storage(name), "a", withDeadline(200)));
    while (guest.pulls[0]?.bytes !== 500_000) await delay(10);
    assert.deepEqual(guest.pulls, [{ image: name, bytes: 500_000, totalBytes: big.length, layers: 1 }]);
    assert.match(await first, /deadline/);
    const second = guest.prepare(storage(name), "a", background());
    open();
    await second;
    assert.equal(registry.asked.filter((a) => a.path.endsWith(image.layers[0] as string)).length, 1);

    const alone = images([registry], { stallMs: 5000 }, 50);
    assert.match(await refusal(alone.guest.prepare(storage(name), "a", withDeadline(100))), /deadline/);
    while (alone.guest.pulls.length > 0) await delay(10);
    assert.deepEqual(alone.left(), []);
    assert.match(alone.log.at(-1) ?? "", /no container waits for it/);
    assert.ok(left().length > 0);
  });

  it("has a time limit and says how far it came", async () => {
    await using registry = await FakeRegistry.start();
    const image = makeImage([big], { compression: "none" });
    const name = registry.add("app", "1", image);
    registry.misbehave = (_asked, response, bytes) => {
      if (bytes.length < 1000) return false;
      response.writeHead(200, { "content-length": bytes.length });
      response.write(bytes.subarray(0, 1 << 20));
      return true;
    };
    const { guest } = images([registry], { stallMs: 10_000, pullTimeoutMs: 500 });
    const said = await refusal(guest.prepare(storage(name), "a", background()));
    assert.match(said, /the time for it is over: 1\.0 of 2\.9 MiB in 1 layers had come/);
  });

  it("names the disk that is full", { skip: process.getuid?.() !== 0 }, async () => {
    await using registry = await FakeRegistry.start();
    const name = registry.add(
      "app",
      "1",
      makeImage([await makeLayer([{ name: "zeros", content: Buffer.alloc(8 << 20) }])]),
    );
    const large = registry.add("app", "2", makeImage([big], { compression: "none" }));
    const { guest, disk, left } = images([registry]);
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=2m", "tmpfs", disk]);
    try {
      assert.match(
        await refusal(guest.prepare(storage(name), "a", background())),
        /disk is full: .* MiB in 1 layers had come/,
      );
      assert.match(
        await refusal(guest.prepare(storage(large), "a", background())),
        /needs more than 3 MiB, .* has 2 MiB free/,
      );
      assert.deepEqual(left(), []);
      await guest.prepare(storage(registry.add("app", "3", makeImage([base]))), "a", background());
    } finally {
      execFileSync("umount", [disk]);
    }
  });

  it("takes the place of layers that nobody needs any more", { skip: process.getuid?.() !== 0 }, async () => {
    await using registry = await FakeRegistry.start();
    const { guest, disk, left } = images([registry]);
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=5m", "tmpfs", disk]);
    try {
      const image = async () =>
        makeImage([await makeLayer([{ name: "x", content: random(3_000_000) }])], { compression: "none" });
      await guest.prepare(storage(registry.add("app", "1", await image())), "a", background());
      const second = storage(registry.add("app", "2", await image()));
      assert.match(await refusal(guest.prepare(second, "b", background())), /needs more than 3 MiB/);
      guest.release("a");
      await guest.prepare(second, "b", background());
      assert.equal(left().length, 1);
    } finally {
      execFileSync("umount", [disk]);
    }
  });
});
