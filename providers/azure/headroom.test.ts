import assert from "node:assert/strict";
import { it } from "node:test";
import { Headroom } from "./headroom.ts";

it("background requests hold back while Azure says that little is left, of either bucket", () => {
  let now = 0;
  const headroom = new Headroom({ now: () => new Date(now) });
  const note = (headers: Record<string, string>): void => headroom.note("read", (name) => headers[name]);
  assert.equal(headroom.waitMs("read"), 0);
  note({ "x-ms-ratelimit-remaining-subscription-reads": "24" });
  assert.ok(headroom.waitMs("read") > 0);
  assert.equal(headroom.waitMs("write"), 0);
  note({ "x-ms-ratelimit-remaining-subscription-reads": "249" });
  assert.equal(headroom.waitMs("read"), 0);
  note({ "x-ms-ratelimit-remaining-resource": "Microsoft.Compute/GetVM3Min;711,Microsoft.Compute/GetVM30Min;3" });
  assert.ok(headroom.waitMs("read") > 0);
  note({}); // an answer that does not say takes nothing back
  assert.ok(headroom.waitMs("read") > 0);
  now = 10_001;
  assert.equal(headroom.waitMs("read"), 0);
});
