import { spawn } from "node:child_process";
import type { Call } from "./call.ts";
import { Fault } from "./fault.ts";

export interface ExecResult {
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs a program to its end, without a shell.
 * @throws Fault internal with { command, exitCode } and the program's stderr in the message; unavailable when it is not installed
 */
export function exec(
  command: string,
  args: readonly string[],
  call: Call,
  options: { readonly input?: string | Uint8Array; readonly cwd?: string; readonly env?: NodeJS.ProcessEnv } = {},
): Promise<ExecResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      stdio: [options.input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
      cwd: options.cwd,
      env: options.env,
      signal: call.signal,
    });
    let stdout = "";
    let stderr = "";
    child.stdout?.setEncoding("utf8").on("data", (d: string) => {
      stdout += d;
    });
    child.stderr?.setEncoding("utf8").on("data", (d: string) => {
      stderr += d;
    });
    child.on("error", (cause: NodeJS.ErrnoException) => {
      const missing = cause.code === "ENOENT";
      reject(
        missing
          ? new Fault(
              "unavailable",
              `${command} is not installed or not on PATH`,
              { command },
              { cause, retryable: false },
            )
          : Fault.from(cause, { command }),
      );
    });
    child.on("close", (exitCode, signal) => {
      if (exitCode === 0) resolve({ stdout, stderr });
      else {
        const how = signal === null ? `exit ${exitCode}` : `signal ${signal}`;
        const said = (stderr.trim() || stdout.trim()).slice(-2000);
        reject(new Fault("internal", `${command} ended with ${how}: ${said}`, { command, exitCode: exitCode ?? -1 }));
      }
    });
    if (options.input !== undefined) {
      child.stdin?.on("error", () => undefined); // EPIPE: the exit code tells why
      child.stdin?.end(options.input);
    }
  });
}
