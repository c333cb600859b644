import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import { Fault } from "../../src/base/fault.ts";
import { Storage } from "../../src/gen/agent/agent.ts";
import { GuestImages } from "../../src/guest/images/index.ts";
import type { ImageSettings } from "../../src/guestwire/index.ts";
import type { FakeRegistry } from "../fakes/registry.ts";
import { makeLayer } from "./test-image.ts";

const home = mkdtempSync(join(tmpdir(), "guest-images-"));
after(() => rmSync(home, { recursive: true }));

export const storage = (source: string, ...driverOptions: string[]): Storage =>
  Storage.fromPartial({ driver: "image_guest_pull", source, driverOptions });

/** Images in a directory of their own, that know the registries as ones without TLS. */
export function images(registries: readonly FakeRegistry[], settings: ImageSettings = {}, lingerMs = 60_000) {
  const disk = mkdtempSync(join(home, "disk-"));
  const log: string[] = [];
  const line = (message: string, fields?: object): unknown => log.push(`${message} ${JSON.stringify(fields)}`);
  const options = { disk, lingerMs, authFile: `${disk}.auth.json`, settingsFile: `${disk}.images.json` };
  const guest = new GuestImages({ ...options, log: { info: line, warn: line, error: line } });
  const plain = Object.fromEntries(registries.map((r) => [r.host, { plainHttp: true }]));
  guest.setSettings(
    JSON.stringify({ stallMs: 500, attempts: 3, ...settings, registries: { ...plain, ...settings.registries } }),
  );
  const left = (): string[] => (existsSync(`${disk}/l`) ? readdirSync(`${disk}/l`) : []);
  return { guest, disk, log, left };
}

/** What the error says, as a kubelet shows it. */
export async function refusal(work: Promise<unknown>): Promise<string> {
  return await work.then(
    () => assert.fail("it was pulled"),
    (e: unknown) => Fault.from(e).fullMessage,
  );
}

export const random = (bytes: number): Buffer => randomBytes(bytes);
export const base = await makeLayer([
  { name: "etc/", type: "directory" },
  { name: "etc/os", content: "small" },
]);
export const big = await makeLayer([{ name: "big", content: random(3_000_000) }]);
