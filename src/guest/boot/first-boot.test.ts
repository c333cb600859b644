import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import type { GuestLog } from "../system/guest-log.ts";
import { checkFirstBoot, markBooted } from "./first-boot.ts";

const home = mkdtempSync(join(tmpdir(), "first-boot-"));
after(() => rmSync(home, { recursive: true }));
const warnings: string[] = [];
const ignore = (): void => undefined;
const log: GuestLog = { info: ignore, error: ignore, warn: (message) => warnings.push(message) };

describe("a second start of a VM", () => {
  it("is refused, the first is not", async () => {
    checkFirstBoot(home);
    await markBooted(home, log);
    assert.throws(() => checkFirstBoot(home), { code: "failed_precondition", message: /started a second time/ });
    assert.deepEqual(warnings, []);
  });

  it("cannot be told when the disk takes nothing, which is worth a line", async () => {
    await markBooted(join(home, "missing"), log);
    assert.deepEqual(warnings, ["this start could not be marked on the disk"]);
  });
});
