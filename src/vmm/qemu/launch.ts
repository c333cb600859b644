import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { open } from "node:fs/promises";
import { Fault } from "../../base/fault.ts";

/**
 * Runs in the new process before QEMU takes it over. $1 is the expected parent or empty, $2 the file size limit in
 * blocks of 512 bytes, then cgroup.procs files up to "--", then the command. Ignored signals stay ignored over exec:
 * HUP, so that our terminal going away ends no VM; XFSZ (25), so that reaching the limit is a write error and no death.
 * An OOM score that protects our daemon must not protect the VM.
 */
const PRELUDE = `
umask 077
[ -z "$1" ] || [ "$1" = "$PPID" ] || exit 98
limit=$2
shift 2
while [ "$1" != -- ]; do echo $$ 2>/dev/null >"$1" || :; shift; done
shift
echo 0 2>/dev/null >/proc/self/oom_score_adj || :
trap '' 1 25
ulimit -f "$limit"
exec "$@"`;

export interface Launch {
  readonly command: string;
  readonly args: readonly string[];
  readonly cwd: string;
  readonly logPath: string;
  readonly lifetime: "child" | "detached";
  readonly cgroupFiles: readonly string[];
  /** No file that it writes may grow beyond this. */
  readonly maxFileBytes: number;
}

/**
 * Starts a process in a session of its own. `child`: the kernel kills it when we die (setpriv, util-linux).
 * @throws Fault unavailable when sh or setpriv is missing
 */
export async function launch(what: Launch): Promise<ChildProcess> {
  const log = await open(what.logPath, "a", 0o600);
  const parent = what.lifetime === "child" ? String(process.pid) : "";
  const prelude = [
    "sh",
    "-c",
    PRELUDE,
    "sh",
    parent,
    String(Math.ceil(what.maxFileBytes / 512)),
    ...what.cgroupFiles,
    "--",
  ];
  const whole = [...(what.lifetime === "child" ? ["setpriv", "--pdeathsig", "KILL", "--"] : []), ...prelude];
  try {
    const [program = "", ...args] = [...whole, what.command, ...what.args];
    // detached makes the session: a Ctrl-C in our terminal must not reach the VM.
    const child = spawn(program, args, { detached: true, stdio: ["ignore", log.fd, log.fd], cwd: what.cwd });
    await once(child, "spawn").catch((cause: unknown) => {
      const fault = Fault.from(cause, { command: program });
      if (fault.code !== "not_found") throw fault;
      throw new Fault(
        "unavailable",
        `${program} is not installed: apt-get install util-linux`,
        { command: program },
        { cause, retryable: false },
      );
    });
    return child;
  } finally {
    await log.close();
  }
}
