// Usage: node deploy/compose/up.ts [--dir DIR] [--home DIR]
// The services of docker-compose.yml without Docker, as processes of this machine: same commands, same environment,
// names of services from a hosts file that only they see. Ends, with all of them, on Ctrl-C. Needs root.
//   --dir    for their state; a temporary one, which is removed at the end, unless given
//   --home   made by make-context.ts; made here unless given
import { spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { Fault } from "../../src/base/fault.ts";
import { readComposeFile, startOrder } from "./compose-file.ts";
import { LocalServices } from "./local-services.ts";

const stopping = new AbortController();
for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(name, () => stopping.abort(new Fault("cancelled", `${name} received`)));
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { dir: { type: "string" }, home: { type: "string" } } });
  if (process.getuid?.() !== 0) throw new Fault("permission_denied", "root is needed: VMs and their network are made");
  const dir = values.dir === undefined ? await mkdtemp(join(tmpdir(), "kr-up-")) : resolve(values.dir);
  try {
    await mkdir(dir, { recursive: true, mode: 0o700 });
    const home = values.home === undefined ? await makeHome(dir) : resolve(values.home);
    const { services } = await readComposeFile();
    // Loopback addresses of their own: ports are those of the compose file, and others may do the same at once.
    const network = `127.${randomInt(32, 250)}.${randomInt(0, 250)}`;
    const hosts = join(dir, "hosts");
    const addresses = new Map(Object.keys(services).map((name, i) => [name, `${network}.${i + 1}`] as const));
    await writeFile(hosts, hostsFile(services, addresses));
    const local = new LocalServices({ services, dir, home, hosts, addresses });
    try {
      for (const name of startOrder(services)) await local.start(name, stopping.signal);
      const run = local.commandLine("node", ["run", "echo", "hello from a VM"]);
      console.log(`ready: a container in a VM:\n  ${run}`);
      await local.untilStopped(stopping.signal);
    } finally {
      await local.stop();
    }
  } finally {
    if (values.dir === undefined) await rm(dir, { recursive: true, force: true });
  }
}

async function makeHome(dir: string): Promise<string> {
  const out = join(dir, "context");
  const args = [join(import.meta.dirname, "make-context.ts"), "--without-root", "--out", out];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "ignore", "inherit"], signal: stopping.signal });
  const code = await new Promise<number | null>((done, failed) => child.on("error", failed).on("exit", done));
  if (code !== 0) throw new Fault("internal", `make-context ended with ${code}`);
  return join(out, "kata-remote");
}

function hostsFile(
  services: Awaited<ReturnType<typeof readComposeFile>>["services"],
  addresses: ReadonlyMap<string, string>,
): string {
  const lines = Object.entries(services).map(([name, { networks }]) => {
    return `${addresses.get(name)} ${[name, ...(networks?.default?.aliases ?? [])].join(" ")}`;
  });
  return `127.0.0.1 localhost\n${lines.join("\n")}\n`;
}

try {
  await main();
} catch (e) {
  if (!stopping.signal.aborted) {
    console.error(`up: ${Fault.from(e).fullMessage}`);
    process.exitCode = 1;
  }
}
