// An adaptor on provider zero that sends itself a signal (SIGKILL) at a chosen instant:
//   node crashing-adaptor.ts <dir> <instant> [<configuration, JSON> [<directory of the provider> [<signal>]]]
// Instants are counted over every write to the store and every call to the provider, before and after each. It prints
// "ready" when its doors are open, and "instant <n>" as each one passes.

import { writeSync } from "node:fs";
import { join } from "node:path";
import { createAdaptor } from "../../src/adaptor/index.ts";
import { silentLogger } from "../../src/base/log.ts";
import { adaptorConfig } from "./adaptor-under-test.ts";
import { ZeroProvider } from "./zero-provider.ts";

const [dir = "", instantText = "0", change = "{}", cloud = join(dir, "zero"), signal = "SIGKILL"] =
  process.argv.slice(2);
const fatal = Number(instantText);
let armed = false;
let instant = 0;

function pass(): void {
  if (!armed) return;
  instant++;
  writeSync(1, `instant ${instant}\n`);
  if (instant === fatal) process.kill(process.pid, signal);
}

/** The same object, with an instant before and after each call of the named methods. */
function watched<T extends object>(target: T, methods: readonly string[]): T {
  return new Proxy(target, {
    get(object, key) {
      const value: unknown = Reflect.get(object, key, object);
      if (typeof value !== "function") return value;
      const method = value.bind(object) as (...args: unknown[]) => Promise<unknown>;
      if (typeof key !== "string" || !methods.includes(key)) return method;
      return async (...args: unknown[]) => {
        pass();
        const result = await method(...args);
        pass();
        return result;
      };
    },
  });
}

function of(object: object, key: string | symbol): unknown {
  const value: unknown = Reflect.get(object, key, object);
  return typeof value === "function" ? value.bind(object) : value;
}

const config = adaptorConfig(dir, JSON.parse(change) as Record<string, unknown>);
const places = (config.providers.zero as { readonly places?: readonly string[] } | undefined)?.places;
const zero = new ZeroProvider({ dir: cloud, ...(places === undefined ? {} : { places }) });
const batches = zero.batches && watched(zero.batches, ["createInstances"]);
const calls = watched(zero, ["createInstance", "deleteInstance"]);
const provider = new Proxy(calls, { get: (object, key) => (key === "batches" ? batches : of(object, key)) });
const adaptor = createAdaptor(config, {
  provider,
  log: silentLogger(),
  wrapStore(store) {
    const sandboxes = watched(store.sandboxes, ["insert", "update"]);
    const operations = watched(store.operations, ["submit", "claim", "begin", "settle", "cancelQueued"]);
    return new Proxy(store, {
      get: (object, key) => (key === "sandboxes" ? sandboxes : key === "operations" ? operations : of(object, key)),
    });
  },
});
await adaptor.start();
armed = true;
writeSync(1, "ready\n");
