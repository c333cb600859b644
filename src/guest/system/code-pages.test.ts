import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { forgetCode, unchangedMappings } from "./code-pages.ts";

/** An entry of /proc/<pid>/smaps. */
function entry(head: string, kib: { rss: number; anonymous?: number; dirty?: number }): string {
  const line = (key: string, value: number): string => `${`${key}:`.padEnd(16)}${String(value).padStart(8)} kB\n`;
  return [
    `${head}\n`,
    ...[line("Size", 60_000), line("Rss", kib.rss), line("Private_Dirty", kib.dirty ?? 0)],
    ...[line("Anonymous", kib.anonymous ?? 0), "VmFlags: rd ex mr mw me \n"],
  ].join("");
}

const CODE = "00c00000-04000000 r-xp 00800000 fe:00 1234                       /usr/bin/node";

describe("unchangedMappings", () => {
  it("finds the code and the constants of a program", () => {
    const constants = entry("00400000-00c00000 r--p 00000000 fe:00 1234   /usr/bin/node", { rss: 5000 });
    assert.deepEqual(unchangedMappings(constants + entry(CODE, { rss: 30_000 })), [
      { address: 0x400000n, length: 0x800000n },
      { address: 0xc00000n, length: 0x3400000n },
    ]);
  });

  for (const [what, text] of [
    ["can be written", entry(CODE.replace("r-xp", "rw-p"), { rss: 30_000 })],
    ["is shared", entry(CODE.replace("r-xp", "r-xs"), { rss: 30_000 })],
    ["was relocated: it holds pages of its own", entry(CODE, { rss: 30_000, anonymous: 4 })],
    ["has changed pages", entry(CODE, { rss: 30_000, dirty: 4 })],
    ["belongs to no file", entry("00c00000-04000000 r-xp 00000000 00:00 0 ", { rss: 30_000 })],
    ["is the kernel's", entry("7ffc1000-7ffc3000 r-xp 00000000 00:00 0            [vdso]", { rss: 30_000 })],
    ["is too small to matter", entry(CODE, { rss: 900 })],
    ["does not tell", `${CODE}\nRss:  30000 kB\n`],
  ] as const) {
    it(`leaves what ${what}`, () => assert.deepEqual(unchangedMappings(text), []));
  }
});

describe("forgetCode", () => {
  it("makes this process smaller, and it goes on", () => {
    const fileKib = (): number => Number(/^RssFile:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1]);
    const before = fileKib();
    forgetCode();
    const after = fileKib();
    assert.ok(after < before / 2, `${before} KiB of files were mapped, ${after} are left`);
    // What is used comes back.
    assert.equal(JSON.parse(JSON.stringify({ a: [1, "x".repeat(100_000)] })).a[1].length, 100_000);
  });
});
