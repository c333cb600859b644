import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { describe, it } from "node:test";
import { Value } from "typebox/value";
import { AdaptorUnderTest, call } from "../../../test/fakes/adaptor-under-test.ts";
import { openApiDocument } from "./open-api.ts";
import { ROUTES } from "./routes.ts";

describe("OpenAPI document", { timeout: 60_000 }, () => {
  it("is the committed one", async () => {
    const committed = JSON.parse(await readFile(new URL("openapi.json", import.meta.url), "utf8")) as object;
    const made = JSON.parse(JSON.stringify(openApiDocument(ROUTES, "0"))) as object;
    const hint = "kata-remote adaptor openapi > src/adaptor/api/openapi.json";
    assert.deepEqual(made, committed, hint);
  });

  it("is served, and what is answered is what it says", async () => {
    await using tested = await AdaptorUnderTest.open();
    const id = await tested.createVm();
    const last = (await tested.startVm(id)).at(-1);
    const sync = { nodeId: tested.nodeId, bootId: "b", session: 1n, sequence: 1n, liveSandboxIds: [id] };
    await tested.client.syncNode(sync, call());
    const { paths } = await tested.json<{ paths: Record<string, object> }>("/openapi.json");
    assert.equal(Object.keys(paths).length, new Set(ROUTES.map((r) => r.path)).size);
    const ids: Record<string, string> = { "/v1/sandboxes": id, "/v1/operations": last?.operationId ?? "" };
    let checked = 0;
    for (const { method, path, answer } of ROUTES) {
      if (method !== "GET" || answer === undefined) continue;
      const [collection = ""] = path.split("/:id");
      const body = await tested.json(path.replace(":id", ids[collection] ?? "x"));
      assert.deepEqual([...Value.Errors(answer, body)], [], path);
      checked++;
    }
    assert.ok(checked >= 10);
  });
});
