import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { PodVmDefinition } from "../../src/gen/kataremote/podvm/v1/podvm.ts";
import { createClient } from "../../src/grpc/index.ts";
import type { PodVmClient } from "../fakes/adaptor-under-test.ts";

const PROGRAM = new URL("../fakes/crashing-adaptor.ts", import.meta.url).pathname;

/** An adaptor on provider zero in a process of its own, to be killed. */
export class AdaptorProcess {
  readonly client: PodVmClient;
  readonly exited: Promise<unknown>;
  /** Resolves when it has reached its instant. */
  readonly reached: Promise<void>;
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess, parts: Pick<AdaptorProcess, "client" | "exited" | "reached">) {
    this.#child = child;
    this.client = parts.client;
    this.exited = parts.exited;
    this.reached = parts.reached;
  }

  /**
   * Resolves when its doors are open.
   * @param options.instant it sends itself `fatal` at this one; 0 = never
   */
  static async start(options: {
    readonly dir: string;
    readonly instant?: number;
    readonly fatal?: "SIGKILL" | "SIGSTOP";
    readonly config?: Readonly<Record<string, unknown>>;
    readonly cloud?: string;
  }): Promise<AdaptorProcess> {
    const { dir, instant = 0, fatal = "SIGKILL", config = {}, cloud = join(dir, "zero") } = options;
    const args = [PROGRAM, dir, String(instant), JSON.stringify(config), cloud, fatal];
    const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
    const exited = once(child, "exit");
    const died = exited.then(() => Promise.reject(new Error("it died before it was ready")));
    died.catch(() => undefined);
    const lines = createInterface({ input: child.stdout });
    const reached = Promise.withResolvers<void>();
    lines.on("line", (line) => {
      if (line === `instant ${instant}`) reached.resolve();
    });
    await Promise.race([once(lines, "line"), died]);
    const client = createClient(PodVmDefinition, { address: `unix://${join(dir, "adaptor.sock")}` });
    return new AdaptorProcess(child, { client, exited, reached: reached.promise });
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  /** @returns whether it had ended by itself before */
  async kill(): Promise<boolean> {
    const had = this.#child.exitCode !== null || this.#child.signalCode !== null;
    this.client.close();
    this.#child.kill("SIGKILL");
    await this.exited;
    return had;
  }
}
