// What a node daemon does with a relay process, as a process that can be killed. Run with JSON as its only argument; says
// "attached" once its guest is connected and its process's streams are attached. It answers no Task call.
import { readFile } from "node:fs/promises";
import { background } from "../../src/base/call.ts";
import { silentLogger } from "../../src/base/log.ts";
import { CertificateAuthority } from "../../src/identity/index.ts";
import { type GuestSpec, RelayClient, type StdioSpec } from "../../src/relay/index.ts";

export interface RelayDaemonOptions {
  readonly dir: string;
  readonly caDir: string;
  readonly door: string;
  /** Command line that the relay shall start when this process is killed. */
  readonly restart: readonly string[];
  readonly guest: Omit<GuestSpec, "sign" | "onStage">;
  readonly stdio: StdioSpec;
}

const options = JSON.parse(process.argv[2] ?? "") as RelayDaemonOptions;
const relay = await RelayClient.connect(options.dir, { log: silentLogger() }, background());
await relay.setRestart(options.restart, background());
await relay.onTaskRequest(() => new Promise(() => undefined));
const ca = await CertificateAuthority.open(options.caDir);
await relay.openDoor({ door: "d", socketPath: options.door });
await relay.connectGuest(
  {
    ...options.guest,
    sign: async (csrPem) => ({
      certificatePem: await ca.signGuest(csrPem, options.guest.sandboxId),
      verifiedBy: "address",
    }),
  },
  background(),
);
await relay.attachStdio(options.stdio, background());
await readFile("/proc/self/stat"); // the loop is alive: what follows is said by a process that works
process.stdout.write("attached\n");
