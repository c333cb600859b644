import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { FaultCode } from "../../src/base/fault.ts";
import { kindOf, toFault } from "./faults.ts";

/** An error as the SDK throws it. */
function sdkError(name: string, message = "EC2's words", status = 400, headers: Record<string, string> = {}): Error {
  const $metadata = { httpStatusCode: status, requestId: "request-1" };
  return Object.assign(new Error(message), { name, $metadata, $response: { headers } });
}

const TABLE: readonly (readonly [string, string, FaultCode, boolean])[] = [
  ["RequestLimitExceeded", "throttled", "unavailable", true],
  ["Throttling", "throttled", "unavailable", true],
  ["ThrottlingException", "throttled", "unavailable", true],
  ["TooManyRequestsException", "throttled", "unavailable", true],
  ["EC2ThrottledException", "throttled", "unavailable", true],
  ["InternalError", "transient", "unavailable", true],
  ["InternalFailure", "transient", "unavailable", true],
  ["ServiceUnavailable", "transient", "unavailable", true],
  ["Unavailable", "transient", "unavailable", true],
  ["TimeoutError", "transient", "unavailable", true],
  ["InsufficientInstanceCapacity", "capacity", "resource_exhausted", true],
  ["InsufficientHostCapacity", "capacity", "resource_exhausted", true],
  ["InsufficientReservedInstanceCapacity", "capacity", "resource_exhausted", true],
  ["SpotMaxPriceTooLow", "capacity", "resource_exhausted", true],
  ["UnfulfillableCapacity", "capacity", "resource_exhausted", true],
  ["Unsupported", "not-offered", "resource_exhausted", false],
  ["VcpuLimitExceeded", "quota", "resource_exhausted", false],
  ["InstanceLimitExceeded", "quota", "resource_exhausted", false],
  ["MaxSpotInstanceCountExceeded", "quota", "resource_exhausted", false],
  ["VolumeLimitExceeded", "quota", "resource_exhausted", false],
  ["AddressLimitExceeded", "quota", "resource_exhausted", false],
  ["InsufficientFreeAddressesInSubnet", "subnet-full", "resource_exhausted", false],
  ["InvalidAMIID.NotFound", "setup", "failed_precondition", false],
  ["InvalidAMIID.Unavailable", "setup", "failed_precondition", false],
  ["InvalidSubnetID.NotFound", "setup", "failed_precondition", false],
  ["InvalidGroup.NotFound", "setup", "failed_precondition", false],
  ["InvalidKeyPair.NotFound", "setup", "failed_precondition", false],
  ["InvalidLaunchTemplateName.NotFoundException", "setup", "failed_precondition", false],
  ["UnauthorizedOperation", "auth", "permission_denied", false],
  ["AuthFailure", "auth", "permission_denied", false],
  ["ExpiredToken", "auth", "permission_denied", false],
  ["OptInRequired", "auth", "permission_denied", false],
  ["Blocked", "auth", "permission_denied", false],
  ["CredentialsProviderError", "auth", "permission_denied", false],
  ["RequestExpired", "clock", "failed_precondition", false],
  ["InvalidParameterValue", "bad-request", "invalid_argument", false],
  ["InvalidParameterCombination", "bad-request", "invalid_argument", false],
  ["MissingParameter", "bad-request", "invalid_argument", false],
  ["UnknownParameter", "bad-request", "invalid_argument", false],
  ["InvalidBlockDeviceMapping", "bad-request", "invalid_argument", false],
  ["UnsupportedOperation", "bad-request", "invalid_argument", false],
  ["OperationNotPermitted", "refused", "failed_precondition", false],
  ["IncorrectInstanceState", "refused", "failed_precondition", false],
  ["InvalidInstanceID.NotFound", "not-found", "not_found", false],
  ["IdempotentParameterMismatch", "mismatch", "aborted", true],
  ["IdempotentInstanceTerminated", "ended", "failed_precondition", false],
  ["SomethingNew", "unknown", "internal", false],
];

describe("toFault", () => {
  for (const [code, kind, fault, retryable] of TABLE) {
    it(`takes ${code} for ${kind}`, () => {
      const made = toFault(sdkError(code), "RunInstances", { region: "eu-west-1" });
      assert.equal(kindOf(made), kind);
      assert.equal(made.code, fault);
      assert.equal(made.retryable, retryable);
      assert.equal(made.context.awsCode, code);
      assert.equal(made.context.requestId, "request-1");
      assert.match(made.fullMessage, /^RunInstances: .+EC2's words$/);
    });
  }

  it("takes an unknown code of a server's error for transient, and a known one by its name", () => {
    assert.equal(kindOf(toFault(sdkError("Odd", "", 500), "X", {})), "transient");
    // EC2 answers "no capacity" with 500: to repeat it would only keep the next zone waiting.
    assert.equal(kindOf(toFault(sdkError("InsufficientInstanceCapacity", "", 500), "X", {})), "capacity");
  });

  it("takes a broken connection for transient", () => {
    for (const code of ["ECONNRESET", "ECONNREFUSED", "ETIMEDOUT", "EAI_AGAIN", "ENOTFOUND"]) {
      const fault = toFault(Object.assign(new Error("no"), { code }), "X", {});
      assert.equal(kindOf(fault), "transient", code);
      assert.equal(fault.code, "unavailable");
    }
  });

  it("says after how long a throttled request may come again: what EC2 says, else a second", () => {
    assert.equal(
      toFault(sdkError("RequestLimitExceeded", "", 503, { "retry-after": "7" }), "X", {}).context.retryAfterMs,
      7000,
    );
    assert.equal(toFault(sdkError("RequestLimitExceeded", "", 503), "X", {}).context.retryAfterMs, 1000);
    assert.equal(toFault(sdkError("VcpuLimitExceeded"), "X", {}).context.retryAfterMs, undefined);
  });

  it("leaves out the part of a refusal that nobody can read", () => {
    const text = "You are not authorized. Encoded authorization failure message: AbC-dEf_0123";
    assert.ok(
      toFault(sdkError("UnauthorizedOperation", text), "X", {}).fullMessage.endsWith("You are not authorized."),
    );
  });
});
