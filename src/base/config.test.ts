import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Type } from "typebox";
import { parseConfig } from "./config.ts";
import { Fault } from "./fault.ts";

const schema = Type.Object(
  {
    startVmTimeoutMs: Type.Integer({ minimum: 1_000, default: 600_000 }),
    rest: Type.Object({ port: Type.Integer({ default: 8080 }) }, { additionalProperties: false, default: {} }),
  },
  { additionalProperties: false },
);

function problem(input: unknown): Fault {
  try {
    parseConfig(schema, input, "node.toml");
  } catch (e) {
    assert(e instanceof Fault);
    return e;
  }
  throw new Error("the input was accepted");
}

describe("parseConfig", () => {
  it("fills defaults in, nested ones too", () => {
    assert.deepEqual(parseConfig(schema, {}, "x"), { startVmTimeoutMs: 600_000, rest: { port: 8080 } });
  });
  it("leaves the caller's object alone", () => {
    const input = {};
    parseConfig(schema, input, "x");
    assert.deepEqual(input, {});
  });
  it("names an unknown key, where it stands and the file", () => {
    assert.match(problem({ rest: { prot: 1 } }).message, /^node\.toml: rest: unknown key "prot"$/);
    assert.equal(problem({ x: 1 }).code, "invalid_argument");
  });
  it("does not turn text into numbers", () => {
    assert.match(problem({ startVmTimeoutMs: "600000" }).message, /startVmTimeoutMs: must be integer/);
  });
  it("says the limit that a value breaks", () => {
    assert.match(problem({ startVmTimeoutMs: 5 }).message, /must be >= 1000/);
  });
});
