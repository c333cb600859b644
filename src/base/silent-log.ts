import type { Logger } from "pino";

const nothing = (): void => undefined;

/**
 * A logger that writes nothing; for tests and for libraries used without one. It loads no logging library, which counts
 * in the guest: there pino alone costs a tenth of the program's start.
 */
export function silentLogger(): Logger {
  const levels = { trace: nothing, debug: nothing, info: nothing, warn: nothing, error: nothing, fatal: nothing };
  const logger = { ...levels, silent: nothing, flush: nothing, level: "silent", child: () => logger };
  return logger as unknown as Logger;
}
