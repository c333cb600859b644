import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, statSync } from "node:fs";
import { describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { FakeRegistry } from "../../../test/fakes/registry.ts";
import { base, big, images, random, refusal, storage } from "../../../test/support/guest-images.ts";
import { makeImage, makeIndex, makeLayer } from "../../../test/support/test-image.ts";
import { background, withDeadline } from "../../base/call.ts";

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
