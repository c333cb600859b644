import { Fault } from "../../base/fault.ts";

/** What containerd names in its clean-up call. */
export interface DeleteFlags {
  readonly address: string;
  readonly namespace: string;
  readonly id: string;
}

/**
 * Reads `-name value` pairs as the launcher passes them on.
 * @throws Fault invalid_argument
 */
export function parseDeleteFlags(flags: readonly string[]): DeleteFlags {
  const values = new Map<string, string>();
  for (let i = 0; i < flags.length; i += 2) {
    const [flag, value] = [flags[i] as string, flags[i + 1]];
    if (!flag.startsWith("-") || value === undefined) {
      throw new Fault(
        "invalid_argument",
        `"${flag}" is not a flag with a value; containerd runs: -address A -namespace N -id I delete`,
      );
    }
    values.set(flag.replace(/^--?/, ""), value);
  }
  const id = values.get("id") ?? "";
  if (id === "") throw new Fault("invalid_argument", "flag -id is missing");
  return { id, address: values.get("address") ?? "", namespace: values.get("namespace") ?? "" };
}
