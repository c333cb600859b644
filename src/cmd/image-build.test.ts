import assert from "node:assert/strict";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { imageBuild } from "./image-build.ts";

describe("image build", () => {
  it("is refused when run from the sources, whose folder guest/ is no bundle: such an image would not start", async () => {
    const dir = await mkdtemp(join(tmpdir(), "image-build-"));
    const call = { signal: new AbortController().signal };
    await assert.rejects(imageBuild({ out: join(dir, "out"), cache: join(dir, "cache") }, call), {
      code: "failed_precondition",
      message: /guest\.mjs is missing: run "npm run build"/,
    });
    assert.deepEqual(await readdir(dir), []);
    await rm(dir, { recursive: true });
  });
});
