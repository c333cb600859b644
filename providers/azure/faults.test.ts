import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Fault } from "../../src/base/fault.ts";
import { FAULT_CODES } from "./fault-codes.ts";
import { type AzureFaultKind, faultOf, kindOf, readRetryAfter, toFault } from "./faults.ts";

const QUOTA =
  "Operation could not be completed as it results in exceeding approved standardDCASv5Family Cores quota. Additional details - Deployment Model: Resource Manager, Location: westeurope, Current Limit: 350, Current Usage: 348, Additional Required: 4, (Minimum) New Limit Required: 352.";

/** What Azure answers, with the status it does so; then what it means, and the code that callers see. */
const CASES: readonly (readonly [string, number | undefined, string, AzureFaultKind, string])[] = [
  ["TooManyRequests", 429, "", "throttled", "unavailable"],
  ["OperationNotAllowed", 429, "the server rejected the request because too many", "throttled", "unavailable"],
  ["SubscriptionRequestsThrottled", 429, "", "throttled", "unavailable"],
  ["AllocationFailed", 409, "", "capacity", "resource_exhausted"],
  ["ZonalAllocationFailed", 409, "", "capacity", "resource_exhausted"],
  ["OverconstrainedAllocationRequest", 409, "", "capacity", "resource_exhausted"],
  ["OverconstrainedZonalAllocationRequest", 409, "", "capacity", "resource_exhausted"],
  ["SkuNotAvailable", 409, "", "not-offered", "resource_exhausted"],
  ["QuotaExceeded", 409, QUOTA, "quota", "resource_exhausted"],
  ["OperationNotAllowed", 409, QUOTA, "quota", "resource_exhausted"],
  ["OperationNotAllowed", 409, "the VM is being deallocated", "busy", "unavailable"],
  ["SubnetIsFull", 400, "", "subnet-full", "resource_exhausted"],
  ["ResourceGroupNotFound", 404, "", "setup", "failed_precondition"],
  ["PlatformImageNotFound", 404, "", "setup", "failed_precondition"],
  ["RequestDisallowedByPolicy", 403, "", "setup", "failed_precondition"],
  ["ScopeLocked", 409, "", "setup", "failed_precondition"],
  ["AuthorizationFailed", 403, "", "auth", "permission_denied"],
  ["LinkedAuthorizationFailed", 403, "", "auth", "permission_denied"],
  ["ExpiredAuthenticationToken", 401, "", "auth", "permission_denied"],
  ["SomethingNew", 403, "", "auth", "permission_denied"],
  ["InvalidParameter", 400, "", "bad-request", "invalid_argument"],
  ["invalidparameter", 400, "", "bad-request", "invalid_argument"],
  ["SomethingNew", 400, "", "bad-request", "invalid_argument"],
  ["ResourceNotFound", 404, "", "not-found", "not_found"],
  ["PreconditionFailed", 412, "", "exists", "already_exists"],
  ["SomethingNew", 412, "", "exists", "already_exists"],
  ["Conflict", 409, "", "busy", "unavailable"],
  ["NicReservedForAnotherVm", 400, "", "busy", "unavailable"],
  ["InternalServerError", 500, "", "transient", "unavailable"],
  ["SomethingNew", 503, "", "transient", "unavailable"],
  ["ECONNRESET", undefined, "", "transient", "unavailable"],
  ["REQUEST_SEND_ERROR", undefined, "", "transient", "unavailable"],
  ["VMStartTimedOut", undefined, "", "transient", "unavailable"],
  ["SomethingNew", 418, "", "unknown", "internal"],
];

describe("Azure's errors", () => {
  for (const [code, status, message, kind, fault] of CASES) {
    it(`${code} (${status ?? "no answer"}) is ${kind}`, () => {
      const made = faultOf({ code, message, status }, "create VM", { region: "westeurope" });
      assert.deepEqual([made.context.kind, made.code, kindOf(made)], [kind, fault, kind]);
      assert.equal(made.context.azureCode, code);
      assert.equal(made.retryable, ["unavailable"].includes(fault) || kind === "capacity");
    });
  }

  it("are in the table once each", () => {
    const all = Object.values(FAULT_CODES)
      .flat()
      .map((c) => c.toLowerCase());
    assert.equal(new Set(all).size, all.length);
  });

  it("of quotas show their numbers", () => {
    const { message } = faultOf({ code: "OperationNotAllowed", message: QUOTA, status: 409 }, "create VM", {});
    assert.match(message, /standardDCASv5Family Cores quota 348\/350 in westeurope, 4 more are needed/);
  });

  it("are read out of what the SDK throws, at their innermost", () => {
    const details = {
      error: { code: "BadRequest", message: "outer", details: [{ code: "SubnetIsFull", message: "no room" }] },
    };
    const headers = new Map([
      ["x-ms-request-id", "r1"],
      ["retry-after", "7"],
    ]);
    const thrown = Object.assign(new Error("outer"), {
      statusCode: 400,
      code: "BadRequest",
      details,
      response: { headers },
    });
    const fault = toFault(thrown, "create VM", {});
    assert.deepEqual(
      [fault.context.kind, fault.context.requestId, fault.context.retryAfterSaid],
      ["subnet-full", "r1", 7000],
    );
    assert.match(fault.fullMessage, /SubnetIsFull: no room/);
    const other = new Fault("cancelled", "x");
    assert.equal(toFault(other, "create VM", {}), other);
    assert.equal(kindOf(other), undefined);
  });

  it("say when to come again, in any of Azure's ways", () => {
    const from = (headers: Record<string, string>) => readRetryAfter((name) => headers[name]);
    assert.equal(from({ "retry-after": "5" }), 5000);
    assert.equal(from({ "retry-after-ms": "50", "retry-after": "5" }), 50);
    assert.equal(from({ "x-ms-retry-after-ms": "60" }), 60);
    assert.equal(from({ "retry-after": new Date(Date.now() - 5000).toUTCString() }), 0);
    assert.equal(from({ "retry-after": "soon" }), undefined);
    assert.equal(from({}), undefined);
  });
});
