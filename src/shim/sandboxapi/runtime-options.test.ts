import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { serveSandboxes } from "../../../test/fakes/containerd-sandboxes.ts";
import { withDeadline } from "../../base/call.ts";
import { sandboxRuntimeOptions } from "./runtime-options.ts";

const OPTIONS = { typeUrl: "runtimeoptions.v1.Options", value: Buffer.from([0x12, 1, 0x78]) };

describe("a runtime's options", () => {
  it("are those of containerd's sandbox store; a pod that it does not know has none", async () => {
    const dir = await mkdtemp(join(tmpdir(), "store-"));
    const address = join(dir, "c.sock");
    try {
      await using _store = await serveSandboxes(address, new Map([["pod", OPTIONS]]));
      const ask = (id: string) => sandboxRuntimeOptions({ address, namespace: "k8s.io" }, id, withDeadline(30_000));
      const found = await ask("pod");
      assert.deepEqual([found?.typeUrl, found?.value], [OPTIONS.typeUrl, OPTIONS.value]);
      assert.equal(await ask("other"), undefined);
      assert.equal(
        await sandboxRuntimeOptions({ address: "", namespace: "k8s.io" }, "pod", withDeadline(1)),
        undefined,
      );
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  });
});
