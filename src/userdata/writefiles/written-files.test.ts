import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { writtenFiles } from "./index.ts";

describe("files that a cloud-config writes", () => {
  it("are those that are wanted, decoded, the last one of each", () => {
    const text = [
      "#cloud-config",
      "",
      "write_files:",
      "- {path: /a, content: first}",
      "- {path: /a, content: c2Vjb25k, encoding: b64}",
      "- {path: /empty}",
      "- {path: /none, content: }",
      "- {path: /other, content: [not, text]}",
      "- 7",
      "-",
      "- {content: no path}",
    ].join("\n");
    const files = writtenFiles(text, (path) => path !== "/other");
    assert.deepEqual(Object.fromEntries(files), { "/a": "second", "/empty": undefined, "/none": undefined });
  });

  it("are refused by what is wrong with them", () => {
    for (const [text, problem] of [
      ["write_files: [{path: /a, content: [1]}]", /\/a is not text/],
      ["write_files: 7", /not a list/],
      ["", /not a list/],
      ["[", /not valid YAML/],
    ] as const)
      assert.throws(() => writtenFiles(text, () => true), { code: "invalid_argument", message: problem }, text);
  });
});
