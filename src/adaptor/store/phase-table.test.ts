import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { describe, it } from "node:test";
import { ENDING_PHASES, mayFollow, PHASES, TRANSITIONS } from "./phase-table.ts";

describe("table of phases", () => {
  it("is what src/adaptor/README.md draws", async () => {
    const text = await readFile(new URL("../README.md", import.meta.url), "utf8");
    const drawing = /```mermaid\nstateDiagram-v2\n([\s\S]*?)```/.exec(text)?.[1] ?? "";
    const drawn = [...drawing.matchAll(/^\s*(\w+) --> (\w+): (.+)$/gm)].map(([, from, to, why]) => [from, to, why]);
    assert.deepEqual(drawn, TRANSITIONS);
  });

  it("knows every phase, and never comes back from an end", () => {
    const named = new Set(TRANSITIONS.map(([from]) => from).concat(TRANSITIONS.map(([, to]) => to)));
    assert.deepEqual(new Set(PHASES), named);
    for (const end of ENDING_PHASES) {
      const next = PHASES.filter((to) => to !== end && mayFollow(end, to));
      assert.deepEqual(next, end === "stopping" ? ["gone"] : []);
    }
    const order = (phase: (typeof PHASES)[number]): number => PHASES.indexOf(phase);
    for (const [from, to] of TRANSITIONS)
      assert.ok(order(from) < order(to), `a scan by phases could miss ${from} -> ${to}`);
  });

  it("leads every sandbox to its end", () => {
    for (const phase of PHASES) {
      const reached = new Set([phase]);
      for (const from of reached) for (const to of PHASES) if (mayFollow(from, to)) reached.add(to);
      assert.ok(reached.has("gone"), phase);
    }
  });
});
