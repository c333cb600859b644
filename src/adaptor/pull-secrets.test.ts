import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AdaptorUnderTest } from "../../test/fakes/adaptor-under-test.ts";
import { background } from "../base/call.ts";
import { newSandboxId } from "../base/ids.ts";

describe("pull secrets for a guest that pulls its images", () => {
  it("are those of the sandbox's own pod", async () => {
    const asked: string[] = [];
    await using adaptor = await AdaptorUnderTest.open({
      deps: {
        pullSecrets: async ({ namespace, name }) => {
          asked.push(`${namespace}/${name}`);
          return name === "plain" ? undefined : '{"auths":{"r.io":{"auth":"eDp5"}}}';
        },
      },
    });
    const of = async (name: string): Promise<string> => {
      const sandboxId = newSandboxId();
      await adaptor.client.createVm(
        { sandboxId, nodeId: adaptor.nodeId, pod: { namespace: "team", name, uid: "u" } },
        background(),
      );
      return (await adaptor.client.pullSecrets({ sandboxId }, background())).authJson;
    };
    assert.equal(await of("web"), '{"auths":{"r.io":{"auth":"eDp5"}}}');
    assert.equal(await of("plain"), "");
    assert.deepEqual(asked, ["team/web", "team/plain"]);
    const unknown = adaptor.client.pullSecrets({ sandboxId: newSandboxId() }, background());
    await assert.rejects(unknown, { code: "not_found" });
  });
});
