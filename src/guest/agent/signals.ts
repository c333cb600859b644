import { readFileSync } from "node:fs";

export const SIGTERM = 15;
export const SIGKILL = 9;

/**
 * The signal to send to the init of a PID namespace. The kernel drops what such an init has no handler for, so that a
 * plain `sleep` could not be stopped: SIGTERM becomes SIGKILL then, as with the stock agent.
 */
export function initSignal(pid: number, signal: number): number {
  return signal === SIGTERM && !catches(pid, SIGTERM) ? SIGKILL : signal;
}

function catches(pid: number, signal: number): boolean {
  let status: string;
  try {
    status = readFileSync(`/proc/${pid}/status`, "utf8");
  } catch {
    return true; // gone: sending the signal will say so
  }
  const mask = /^SigCgt:\s+([0-9a-f]+)$/m.exec(status)?.[1] ?? "0";
  return ((BigInt(`0x${mask}`) >> BigInt(signal - 1)) & 1n) === 1n;
}
