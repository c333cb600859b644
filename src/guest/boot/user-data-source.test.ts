import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, describe, it } from "node:test";
import { Fault } from "../../base/fault.ts";
import { machineFacts, readUserData, type UserDataSource, userDataSources } from "./user-data-source.ts";

const home = mkdtempSync(join(tmpdir(), "machine-"));
after(() => rmSync(home, { recursive: true }));
const azureTag = "7783-7084-3265-9085-8269-3286-77";
const machine = { cmdline: "quiet root=/dev/vda", vendor: "", assetTag: "" };

describe("where user-data comes from", () => {
  const cases: readonly [string, Partial<typeof machine>, readonly UserDataSource[]][] = [
    ["EC2", { vendor: "Amazon EC2" }, ["aws"]],
    ["Azure", { vendor: "Microsoft Corporation", assetTag: azureTag }, ["azure"]],
    ["another Hyper-V", { vendor: "Microsoft Corporation", assetTag: "1234" }, ["cidata", "aws", "azure"]],
    ["a machine that says nothing", {}, ["cidata", "aws", "azure"]],
    [
      "a command line that names one",
      { vendor: "Amazon EC2", cmdline: "a kata-remote.user-data=cidata b" },
      ["cidata"],
    ],
    ["a command line that names two", { cmdline: "kata-remote.user-data=azure,cidata" }, ["azure", "cidata"]],
    ["the last of two", { cmdline: "kata-remote.user-data=azure kata-remote.user-data=aws" }, ["aws"]],
  ];
  for (const [name, facts, expected] of cases) {
    it(`${name}: ${expected.join(", ")}`, () => assert.deepEqual(userDataSources({ ...machine, ...facts }), expected));
  }

  it("is not guessed when the command line names something else", () => {
    assert.throws(() => userDataSources({ ...machine, cmdline: "kata-remote.user-data=gcp" }), {
      code: "invalid_argument",
      message: /"gcp": cidata, aws, azure are possible/,
    });
  });

  it("is what the firmware says", () => {
    const write = (path: string, text: string): void => {
      mkdirSync(dirname(join(home, path)), { recursive: true });
      writeFileSync(join(home, path), text);
    };
    assert.deepEqual(machineFacts(home), { cmdline: "", vendor: "", assetTag: "" });
    write("proc/cmdline", "quiet\n");
    write("sys/class/dmi/id/sys_vendor", "Amazon EC2\n");
    write("sys/class/dmi/id/chassis_asset_tag", "x\n");
    assert.deepEqual(machineFacts(home), { cmdline: "quiet", vendor: "Amazon EC2", assetTag: "x" });
  });
});

describe("user-data of several sources", () => {
  const never = (signal: AbortSignal): Promise<string> =>
    new Promise((_, reject) => signal.addEventListener("abort", () => reject(new Error("given up"))));

  it("is that of the first that has any, and the others are given up", async () => {
    let left: AbortSignal | undefined;
    const read = async (source: UserDataSource, signal: AbortSignal): Promise<string> => {
      if (source === "aws") throw new Fault("unavailable", "nobody there");
      if (source === "cidata") return "seed";
      left = signal;
      return await never(signal);
    };
    assert.deepEqual(await readUserData(["aws", "azure", "cidata"], read), { text: "seed", source: "cidata" });
    assert.equal(left?.aborted, true);
  });

  it("is missing when none has any, with what each has said", async () => {
    const read = (source: UserDataSource): Promise<string> =>
      Promise.reject(new Fault("unavailable", `${source} does not answer`));
    await assert.rejects(readUserData(["aws", "azure"], read), {
      code: "not_found",
      message: "no user-data: aws does not answer; azure does not answer",
    });
  });

  it("is missing for the reason of the only one", async () => {
    const fault = new Fault("invalid_argument", "damaged");
    await assert.rejects(
      readUserData(["aws"], () => Promise.reject(fault)),
      fault,
    );
  });
});
