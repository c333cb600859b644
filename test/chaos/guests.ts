import { type ChildProcess, fork } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build, type PluginBuild } from "esbuild";
import { isAlive } from "../e2e/harness/processes.ts";
import type { FromGuest, ToGuest } from "./guest-messages.ts";

/** One guest that was booted. */
export interface Guest {
  readonly pid: number;
  console: string;
  /** The sandbox that configured it. */
  sandboxId?: string;
  readonly alive: boolean;
  /** As a VM ends that nobody asked: at once, with everything in it. */
  kill(): void;
}

export interface GuestBoot {
  readonly userData: Buffer;
  readonly address: string;
  /** Its agent is about to carry out a method. The guest waits for the promise. */
  readonly onStep: (step: string) => Promise<void>;
  /** A node has given it its sandbox. */
  readonly onConfigured: () => void;
}

/** Guest processes; some are kept ready, so that a VM boots as fast as the case wants. */
export class GuestPool implements AsyncDisposable {
  readonly #program: string;
  readonly #folder: string;
  readonly #spare: number;
  readonly #spares: Promise<ChildProcess>[] = [];
  readonly #all = new Set<ChildProcess>();
  #closed = false;

  private constructor(program: string, folder: string, spare: number) {
    this.#program = program;
    this.#folder = folder;
    this.#spare = spare;
  }

  /** @param folder where the guest's program is built, and the guests' disks are */
  static async open(folder: string, spare: number): Promise<GuestPool> {
    const outfile = join(folder, "guest-process.mjs");
    mkdirSync(folder, { recursive: true });
    await build({
      entryPoints: [join(import.meta.dirname, "guest-process.ts")],
      ...{ outfile, bundle: true, platform: "node", target: "node24", format: "esm", logLevel: "warning" },
      supported: { using: true },
      plugins: [{ name: "native", setup: keepNative }],
      banner: {
        js: 'import { createRequire as chaosRequire } from "node:module"; const require = chaosRequire(import.meta.url);',
      },
    });
    const pool = new GuestPool(outfile, folder, spare);
    pool.#refill();
    return pool;
  }

  async boot(options: GuestBoot): Promise<Guest> {
    const child = await (this.#spares.shift() ?? this.#spawn());
    this.#refill();
    const guest = {
      pid: child.pid ?? 0,
      console: "",
      get alive() {
        return child.exitCode === null && child.signalCode === null && isAlive(child.pid ?? 0);
      },
      kill: () => void child.kill("SIGKILL"),
    } as Guest;
    const send = (message: ToGuest): void => {
      if (child.connected) child.send(message, () => undefined); // killed meanwhile
    };
    child.on("message", (message: FromGuest) => {
      if (message.kind === "console") guest.console += message.text;
      if (message.kind === "configured") {
        guest.sandboxId = sandboxOf(message.certificatePem);
        options.onConfigured();
      }
      if (message.kind === "step") void options.onStep(message.step).then(() => send({ kind: "go", id: message.id }));
    });
    send({ kind: "boot", userData: options.userData.toString("base64"), address: options.address });
    return guest;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    for (const child of this.#all) child.kill("SIGKILL");
    await Promise.allSettled(this.#spares);
  }

  #refill(): void {
    while (!this.#closed && this.#spares.length < this.#spare) {
      const spare = this.#spawn();
      spare.catch(() => undefined); // whoever takes it sees it
      this.#spares.push(spare);
    }
  }

  #spawn(): Promise<ChildProcess> {
    const env = { ...process.env, TMPDIR: this.#folder };
    const child = fork(this.#program, [], { stdio: ["ignore", "ignore", "inherit", "ipc"], execArgv: [], env });
    this.#all.add(child);
    child.once("exit", () => this.#all.delete(child));
    return new Promise((resolve, reject) => {
      child.once("message", () => resolve(child));
      child.once("exit", () => reject(new Error("a guest process ended before it was ready")));
    });
  }
}

/** Source: the adaptor's CA names the sandbox as the DNS name of the guest's certificate. */
function sandboxOf(certificatePem: string): string {
  const { subjectAltName = "" } = new X509Certificate(certificatePem);
  return /DNS:([^,\s]+)/.exec(subjectAltName)?.[1] ?? subjectAltName;
}

/** Native code cannot be bundled: it is read from where it is installed. */
function keepNative(build: PluginBuild): void {
  build.onResolve({ filter: /^koffi$/ }, () => ({ path: fileURLToPath(import.meta.resolve("koffi")), external: true }));
}
