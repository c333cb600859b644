import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { statSync, writeFileSync } from "node:fs";
import { describe, it } from "node:test";
import { FakeRegistry, type RegistryOptions, sendFrom } from "../../../test/fakes/registry.ts";
import { base, big, images, random, refusal, storage } from "../../../test/support/guest-images.ts";
import { makeImage, makeLayer } from "../../../test/support/test-image.ts";
import { background } from "../../base/call.ts";
import type { ImageSettings } from "../../guestwire/index.ts";

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
