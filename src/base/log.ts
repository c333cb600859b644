import { type Logger, pino } from "pino";

export type { Logger } from "pino";
export { silentLogger } from "./silent-log.ts";

/** Keys that may carry secrets; whatever they hold is replaced before a line is written. */
const REDACTED = ["userData", "*.userData", "keyPem", "*.keyPem", "privateKey", "*.privateKey", "auth", "*.auth"];

/**
 * A JSON logger. Messages are constant and lower case, data goes into fields:
 * `component sandbox pod instance operation provider node durationMs code`.
 */
export function createLogger(
  component: string,
  options: { readonly level?: string; readonly fd?: number } = {},
): Logger {
  return pino(
    { level: options.level ?? "info", base: { component }, redact: REDACTED, timestamp: pino.stdTimeFunctions.isoTime },
    pino.destination({ fd: options.fd ?? 2, sync: true }),
  );
}
