import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { background } from "../../base/call.ts";
import { CopyFileRequest } from "../../gen/agent/agent.ts";
import { FilePacker } from "./file-packer.ts";

const file = (path: string, bytes: number): CopyFileRequest =>
  CopyFileRequest.fromPartial({ path, fileMode: 0o100644, fileSize: BigInt(bytes), data: Buffer.alloc(bytes, 1) });

function fixture(send: (files: number) => Promise<void> = async () => undefined) {
  const packs: number[] = [];
  const packer = new FilePacker(async (_pack, files) => {
    packs.push(files);
    await send(files);
  });
  return { packer, packs };
}

describe("small files on their way to a guest", () => {
  it("that are sent at the same time are one call", async () => {
    const { packer, packs } = fixture();
    const call = background();
    await Promise.all(Array.from({ length: 300 }, (_, i) => packer.add(file(`/f${i}`, 10), call)));
    assert.deepEqual(packs, [128, 128, 44]);
  });

  it("are not more than a message can carry", async () => {
    const { packer, packs } = fixture();
    const call = background();
    await Promise.all(Array.from({ length: 20 }, (_, i) => packer.add(file(`/f${i}`, 60_000), call)));
    assert.deepEqual(packs, [9, 9, 2]);
  });

  it("of different calls go apart, and each hears of its own failure", async () => {
    const { packer, packs } = fixture(async (files) => {
      if (files === 2) throw new Error("guest disk full");
    });
    const [a, b] = [background(), { ...background() }];
    const first = Promise.allSettled([packer.add(file("/a", 1), a), packer.add(file("/b", 1), a)]);
    const second = Promise.allSettled([packer.add(file("/c", 1), b)]);
    assert.deepEqual((await first).map((r) => r.status).concat((await second).map((r) => r.status)), [
      "rejected",
      "rejected",
      "fulfilled",
    ]);
    assert.deepEqual(packs, [2, 1]);
  });

  it("pieces of a large file are none of them", () => {
    const { packer } = fixture();
    assert.equal(packer.takes(file("/f", 100_000)), false);
    assert.equal(packer.takes({ ...file("/f", 10), fileSize: 20n }), false);
    assert.equal(packer.takes({ ...file("/f", 10), offset: 10n }), false);
    assert.equal(packer.takes(CopyFileRequest.fromPartial({ path: "/l", data: Buffer.from("target") })), true);
  });
});
