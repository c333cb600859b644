/** A part of a configuration, before it is checked. */
export type Overlay = { readonly [key: string]: unknown };

/** What stands in for a configuration file's silence, and what wins over its word. */
export interface Layers {
  readonly under?: Overlay | undefined;
  readonly over?: Overlay | undefined;
}

/** A file's content between its layers. */
export function layered(file: unknown, { under = {}, over = {} }: Layers): Record<string, unknown> {
  return overlay(overlay(under, file as Overlay), over);
}

/** `base` with `over` laid over it, table by table; other values replace what was there. */
export function overlay(base: unknown, over: Overlay): Record<string, unknown> {
  const merged: Record<string, unknown> = { ...(base as Record<string, unknown>) };
  for (const [key, value] of Object.entries(over))
    merged[key] = isTable(value) ? overlay(merged[key] ?? {}, value) : value;
  return merged;
}

function isTable(value: unknown): value is Overlay {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
