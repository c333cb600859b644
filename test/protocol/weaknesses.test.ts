import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { describe, it } from "node:test";

const root = new URL("../../", import.meta.url);
const COUNT = 39;

/** Rows of the table in src/node/README.md: weakness, what is said, tests by file. */
async function rows(): Promise<{ id: string; text: string; tests: { file: string; name: string }[] }[]> {
  const readme = await readFile(new URL("src/node/README.md", root), "utf8");
  return readme.split("\n").flatMap((line) => {
    const [, id, text = "", shown = ""] = /^\| (W-\d+) \| (.*) \| (.*) \|$/.exec(line) ?? [];
    if (id === undefined) return [];
    const tests = shown.split(/; (?=`)/).flatMap((part) => {
      const [, file, name] = /^`([^`]+)`: (.+)$/.exec(part) ?? [];
      return file === undefined || name === undefined ? [] : [{ file, name }];
    });
    return [{ id, text, tests }];
  });
}

describe("the stock worker's weaknesses", () => {
  it("each have one line, with a test or the reason why there is none", async () => {
    const found = await rows();
    assert.deepEqual(
      found.map((row) => row.id),
      Array.from({ length: COUNT }, (_, i) => `W-${i + 1}`),
    );
    for (const { id, text, tests } of found)
      assert.ok(tests.length > 0 || /^Does not (apply|differ): /.test(text), `${id} has neither`);
  });

  it("name tests that exist", async () => {
    for (const { id, tests } of await rows()) {
      for (const { file, name } of tests) {
        const source = await readFile(new URL(file, root), "utf8");
        const titles = [...source.matchAll(/\b(?:it|test)\(\s*(["'`])((?:\\.|(?!\1).)*)\1/g)].map((m) =>
          (m[2] ?? "").replaceAll("\\", ""),
        );
        assert.ok(titles.includes(name), `${id}: ${file} has no test "${name}"`);
      }
    }
  });
});
