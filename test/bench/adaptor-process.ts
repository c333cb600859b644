import { join } from "node:path";
import { createAdaptor } from "../../src/adaptor/index.ts";
import { silentLogger } from "../../src/base/log.ts";
import { adaptorConfig } from "../fakes/adaptor-under-test.ts";
import { ZeroProvider } from "../fakes/zero-provider.ts";
import { serveMeasuringProcess } from "./peer-process.ts";

/**
 * An adaptor in a process of its own with a cloud that costs nothing (a table in memory): real gRPC on a unix socket,
 * real store on disk, the intervals that an adaptor has by default.
 */
const dir = process.argv[2];
if (dir === undefined) throw new Error("a directory is needed");
// No console, so that signing a guest's key does not look at one.
const config = adaptorConfig(dir, { reconcile: {}, rest: { socketPath: join(dir, "rest.sock") } });
const adaptor = createAdaptor(config, { provider: new ZeroProvider(), log: silentLogger() });
await adaptor.start();
process.on("SIGTERM", () => void adaptor.close().finally(() => process.exit(0)));
serveMeasuringProcess(config.grpc.socketPath);
