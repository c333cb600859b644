import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, open, readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { Fault } from "../../src/base/fault.ts";
import type { ComposeService } from "./compose-file.ts";

export interface LocalServicesDeps {
  readonly services: Readonly<Record<string, ComposeService>>;
  readonly dir: string;
  readonly home: string;
  /** Seen by the services in place of /etc/hosts. */
  readonly hosts: string;
  readonly addresses: ReadonlyMap<string, string>;
}

const READY_MS = 300_000;
const END_MS = 60_000;
/** A mount namespace of its own: the hosts file is nobody else's. */
const WITH_HOSTS = 'mount --bind "$1" /etc/hosts && shift && exec "$@"';

/** Services of a compose file as processes of this machine. */
export class LocalServices {
  readonly #deps: LocalServicesDeps;
  /** In the order in which they were started. */
  readonly #running = new Map<string, ChildProcess>();

  constructor(deps: LocalServicesDeps) {
    this.#deps = deps;
  }

  /** Starts one and waits until others may depend on it. @throws Fault with the end of its log */
  async start(name: string, signal: AbortSignal): Promise<void> {
    const { services, dir } = this.#deps;
    const service = this.#service(name);
    await mkdir(join(dir, name), { recursive: true, mode: 0o700 });
    const log = await open(this.#log(name), "a");
    const { program, args, env } = this.#command(name, service.command.slice(1));
    // Dies with us, however we end.
    const child = spawn("setpriv", ["--pdeathsig", "TERM", "--", program, ...args], {
      ...{ env, detached: true, stdio: ["ignore", log.fd, log.fd] },
    });
    await once(child, "spawn");
    await log.close();
    this.#running.set(name, child);
    const mustEnd = Object.values(services).some(
      (s) => s.depends_on?.[name]?.condition === "service_completed_successfully",
    );
    console.log(`${name}: ${mustEnd ? "at work" : "starting"}, log ${this.#log(name)}`);
    for (const end = Date.now() + READY_MS; ; await delay(200, undefined, { signal })) {
      if (child.exitCode === 0 && mustEnd) break;
      if (child.exitCode !== null || child.signalCode !== null)
        throw new Fault(
          "internal",
          `${name} ended with ${child.exitCode ?? child.signalCode}: ${await this.#tail(name)}`,
        );
      if (!mustEnd && (await this.#isReady(name, service))) break;
      if (Date.now() > end) throw new Fault("deadline_exceeded", `${name} is not ready: ${await this.#tail(name)}`);
    }
    if (mustEnd) this.#running.delete(name);
  }

  /** What to type to run service.sh as a service. */
  commandLine(name: string, args: readonly string[]): string {
    const { KR_HOME, KR_STATE, KR_SHARED } = this.#environment(name);
    const set = Object.entries({ KR_HOME, KR_STATE, KR_SHARED }).map(([key, value]) => `${key}=${value}`);
    const quoted = args.map((a) => (/^[\w./:=-]+$/.test(a) ? a : `"${a}"`));
    return [...set, join(this.#deps.home, "service.sh"), ...quoted].join(" ");
  }

  /** Tells of services that end by themselves, as Docker does; resolves when told to stop, or when none is left. */
  async untilStopped(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    const ends = [...this.#running].map(async ([name, child]) => {
      const [code] = (await once(child, "exit", { signal })) as [number | null];
      console.log(`${name}: ended with ${code ?? child.signalCode}, log ${this.#log(name)}`);
    });
    await Promise.all(ends).catch((e: unknown) => {
      if (!signal.aborted) throw e;
    });
  }

  /** Ends all, the last first: a node's pods go while there are adaptors that end their VMs. */
  async stop(): Promise<void> {
    for (const [name, child] of [...this.#running].reverse()) {
      const { program, args, env } = this.#command(name, ["stop", name]);
      await once(spawn(program, args, { env, stdio: "ignore" }), "exit");
      if (child.exitCode !== null || child.signalCode !== null) continue;
      child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), END_MS);
      await once(child, "exit");
      clearTimeout(timer);
    }
    this.#running.clear();
  }

  #service(name: string): ComposeService {
    const service = this.#deps.services[name];
    if (service === undefined) throw new Fault("not_found", `docker-compose.yml has no service ${name}`);
    return service;
  }

  /** service.sh's arguments in the environment that the service has here. */
  #command(
    name: string,
    args: readonly string[],
  ): { readonly program: string; readonly args: readonly string[]; readonly env: NodeJS.ProcessEnv } {
    const { home, hosts } = this.#deps;
    const inside = ["sh", "-c", WITH_HOSTS, "sh", hosts, join(home, "service.sh"), ...args];
    return { program: "unshare", args: ["--mount", ...inside], env: { ...process.env, ...this.#environment(name) } };
  }

  #environment(name: string): Readonly<Record<string, string>> {
    const { dir, home, addresses } = this.#deps;
    const places = { KR_HOME: home, KR_STATE: join(dir, name), KR_SHARED: join(dir, "shared") };
    return { ...this.#service(name).environment, ...places, KR_LISTEN: addresses.get(name) ?? "127.0.0.1" };
  }

  async #isReady(name: string, { healthcheck }: ComposeService): Promise<boolean> {
    const [, , ...check] = healthcheck?.test ?? [];
    if (check.length === 0) return true;
    const { program, args, env } = this.#command(name, check);
    const [code] = (await once(spawn(program, args, { env, stdio: "ignore" }), "exit")) as [number | null];
    return code === 0;
  }

  #log(name: string): string {
    return join(this.#deps.dir, `${name}.log`);
  }

  async #tail(name: string): Promise<string> {
    return (await readFile(this.#log(name), "utf8")).slice(-1500);
  }
}
