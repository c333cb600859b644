import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Fault } from "../base/fault.ts";
import { Code, canonicalCode, faultToStatus, StatusError, statusToFault } from "./status.ts";

describe("faultToStatus", () => {
  it("keeps a Fault's code and tells its causes", () => {
    const status = faultToStatus(
      new Fault("not_found", "container c1 is not known", {}, { cause: new Error("no such file") }),
    );
    assert.equal(status.code, 5);
    assert.equal(status.message, "container c1 is not known: no such file");
  });

  it("passes a status on unchanged, details too", () => {
    const status = new StatusError(9, "no", [{ typeUrl: "t", value: Buffer.of(1) }]);
    assert.equal(faultToStatus(status), status);
  });

  it("never says OK for something thrown", () => {
    assert.equal(faultToStatus(new StatusError(0, "odd")).code, Code.unknown);
  });

  it("says Unknown with the text of anything else", () => {
    assert.deepEqual([faultToStatus(new TypeError("x is undefined")).code, faultToStatus("oops").message], [2, "oops"]);
  });
});

describe("statusToFault", () => {
  it("gives back every code that a Fault can have", () => {
    const codes = [
      ["cancelled", 1],
      ["invalid_argument", 3],
      ["deadline_exceeded", 4],
      ["not_found", 5],
      ["already_exists", 6],
      ["permission_denied", 7],
      ["resource_exhausted", 8],
      ["failed_precondition", 9],
      ["aborted", 10],
      ["unimplemented", 12],
      ["internal", 13],
      ["unavailable", 14],
      ["unauthenticated", 16],
    ] as const;
    for (const [code, canonical] of codes) {
      assert.equal(canonicalCode(code), canonical);
      const status = faultToStatus(new Fault(code, "why"));
      assert.deepEqual(
        [status.code, statusToFault(status).code, statusToFault(status).message],
        [canonical, code, "why"],
      );
    }
  });

  it("finds a code for those that a Fault has not", () => {
    const codes = [2, 11, 15, 99, -1].map((code) => statusToFault(new StatusError(code, "m")).code);
    assert.deepEqual(codes, ["internal", "invalid_argument", "internal", "internal", "internal"]);
  });

  it("passes a Fault unchanged and wraps anything else", () => {
    const fault = new Fault("aborted", "again");
    assert.equal(statusToFault(fault), fault);
    assert.equal(statusToFault(new Error("x")).code, "internal");
  });
});
