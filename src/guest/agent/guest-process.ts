import { Fault } from "../../base/fault.ts";
import type { ProcessIo } from "./process-io.ts";

/** A process of a container: its init or one started by ExecProcess. */
export class GuestProcess {
  readonly pid: number;
  readonly io: ProcessIo;
  /** Exit code, or 128 + signal. Never rejects. */
  readonly exited: Promise<number>;
  #exitCode: number | undefined;

  constructor(pid: number, io: ProcessIo, exit: Promise<number>) {
    this.pid = pid;
    this.io = io;
    this.exited = exit.then((code) => {
      this.#exitCode = code;
      io.stdin.destroy();
      io.stdout.processEnded();
      io.stderr?.processEnded();
      return code;
    });
  }

  get running(): boolean {
    return this.#exitCode === undefined;
  }

  /** @throws Fault not_found when it has exited */
  signal(signal: number): void {
    // Its PID cannot belong to another process before its exit was taken, and from then on it is not running here.
    if (!this.running) throw new Fault("not_found", `process ${this.pid} has exited`);
    process.kill(this.pid, signal);
  }
}
