import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseDoorName } from "./door-name.ts";

describe("parseDoorName", () => {
  for (const [text, namespace, address] of [
    ["k8s.io@/run/containerd/containerd.sock", "k8s.io", "/run/containerd/containerd.sock"],
    ["default@", "default", ""],
    ["a@unix://@abstract", "a", "unix://@abstract"],
    ["/run/containerd/containerd.sock", undefined, "/run/containerd/containerd.sock"],
    ["/run/a@b/containerd.sock", undefined, "/run/a@b/containerd.sock"],
    ["@abstract", undefined, "@abstract"],
  ] as const) {
    it(text, () => assert.deepEqual(parseDoorName(text), { namespace, address }));
  }
});
