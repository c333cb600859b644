import { writeSync } from "node:fs";

export type LogFields = Readonly<Record<string, string | number | boolean | undefined>>;

/** One JSON object a line, as the other processes log, without a library: each costs boot time and memory here. */
export interface GuestLog {
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}

/** Writes to a descriptor; the guest's is its serial console. */
export function createGuestLog(fd: number): GuestLog {
  const write = (level: string, message: string, fields: LogFields = {}): void => {
    const line = JSON.stringify({ level, time: new Date().toISOString(), component: "guest", msg: message, ...fields });
    try {
      writeSync(fd, `${line}\n`);
    } catch {
      // a console that takes nothing (EAGAIN) must not end the pod
    }
  };
  return {
    info: (message, fields) => write("info", message, fields),
    warn: (message, fields) => write("warn", message, fields),
    error: (message, fields) => write("error", message, fields),
  };
}
