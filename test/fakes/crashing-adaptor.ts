// An adaptor on provider zero that kills itself at a chosen instant: node crashing-adaptor.ts <dir> <instant>.
// Instants are counted over every write to the store and every call to the provider, before and after each. It prints
// "ready" when its doors are open, and "instant <n>" as each one passes.

import { writeSync } from "node:fs";
import { join } from "node:path";
import { createAdaptor } from "../../src/adaptor/index.ts";
import { SqliteStore } from "../../src/adaptor/store/index.ts";
import { silentLogger } from "../../src/base/log.ts";
import { adaptorConfig } from "./adaptor-under-test.ts";
import { ZeroProvider } from "./zero-provider.ts";

const [dir = "", instantText = "0"] = process.argv.slice(2);
const fatal = Number(instantText);
let armed = false;
let instant = 0;

function pass(): void {
  if (!armed) return;
  instant++;
  writeSync(1, `instant ${instant}\n`);
  if (instant === fatal) process.kill(process.pid, "SIGKILL");
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

const provider = watched(new ZeroProvider({ dir: join(dir, "zero") }), ["createInstance", "deleteInstance"]);
const adaptor = createAdaptor(adaptorConfig(dir), {
  provider,
  log: silentLogger(),
  async openStore(stateDir) {
    const store = await SqliteStore.open(join(stateDir, "store.sqlite"));
    const sandboxes = watched(store.sandboxes, ["insert", "update"]);
    const operations = watched(store.operations, ["submit", "claim", "settle", "cancelQueued"]);
    return Object.assign(Object.create(store) as SqliteStore, {
      sandboxes,
      operations,
      [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
    });
  },
});
await adaptor.start();
armed = true;
writeSync(1, "ready\n");
