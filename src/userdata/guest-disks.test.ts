import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { makeSelfSigned, newKeyPair } from "../identity/index.ts";
import { NO_DISKS, parseUserData, renderUserData } from "./index.ts";

describe("the disks of a VM, in its user-data", () => {
  const caPem = makeSelfSigned(newKeyPair().keyPem, "test CA");
  const text = (disks?: Parameters<typeof renderUserData>[0]["disks"]): string =>
    Buffer.from(renderUserData({ caPem, ...(disks && { disks }) })).toString();

  it("are not mentioned where there are none", async () => {
    assert.equal(text(NO_DISKS), text());
    assert.deepEqual((await parseUserData(text())).disks, NO_DISKS);
  });

  for (const disks of [
    { scratch: true, volumes: [] },
    { scratch: false, volumes: ["vol-0a1b2c3d4e5f60001", "/subscriptions/s/resourceGroups/g/providers/p/disks/d"] },
  ]) {
    it(`are read back, from our form and from any other: ${JSON.stringify(disks)}`, async () => {
      assert.deepEqual(await parseUserData(text(disks)), { caPem, disks });
      const other = text(disks).replaceAll('"0644"', "'0644'");
      assert.notEqual(other, text(disks));
      assert.deepEqual(await parseUserData(other), { caPem, disks });
    });
  }

  it("are refused when they cannot be read", async () => {
    for (const json of ["7", "{}", '{"scratch":1,"volumes":[]}', '{"scratch":true,"volumes":[1]}', "{"]) {
      const bad = text({ scratch: true, volumes: [] }).replace(/\{"scratch.*\}/, json);
      await assert.rejects(parseUserData(bad), { code: "invalid_argument", message: /its list of disks is/ }, json);
    }
  });
});
