import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { NO_DISKS } from "./guest-disks.ts";
import { CA_PATH, parseUserData, renderUserData } from "./user-data.ts";

const caPem = "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIUabc+/=\nAAAA\n-----END CERTIFICATE-----\n";
const text = (data: Uint8Array): string => Buffer.from(data).toString("utf8");

describe("user-data", () => {
  it("carries the CA to the guest", async () => {
    assert.deepEqual(await parseUserData(text(renderUserData({ caPem }))), { caPem, disks: NO_DISKS });
    assert.deepEqual(await parseUserData(text(renderUserData({ caPem: caPem.trimEnd() }))), { caPem, disks: NO_DISKS });
  });

  it("is read in any form that cloud-config has for it", async () => {
    const base64 = Buffer.from(caPem).toString("base64");
    const document = `#cloud-config\nhostname: x\nwrite_files:\n- {path: /etc/motd, content: hi}\n- encoding: b64\n  content: ${base64}\n  path: ${CA_PATH}\n`;
    assert.deepEqual(await parseUserData(document), { caPem, disks: NO_DISKS });
  });

  it("says what is wrong with a document that it cannot use", async () => {
    const cases: readonly [string, RegExp][] = [
      ["#!/bin/sh\n", /first line/],
      ["#cloud-config\n[", /YAML/],
      ["#cloud-config\n", /write_files is not a list/],
      ["#cloud-config\nwrite_files: [{path: /x}, null]\n", /has no \/run/],
      [`#cloud-config\nwrite_files: [{path: ${CA_PATH}}]\n`, /no content/],
      [`#cloud-config\nwrite_files: [{path: ${CA_PATH}, content: hello}]\n`, /not one PEM certificate/],
      [text(renderUserData({ caPem: caPem + caPem })), /not one PEM certificate/],
      [`#cloud-config\n${"#".repeat(17_000)}`, /longer than/],
    ];
    for (const [document, problem] of cases) {
      await assert.rejects(
        parseUserData(document),
        { code: "invalid_argument", message: problem },
        document.slice(0, 80),
      );
    }
  });
});
