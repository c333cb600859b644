import { Fault } from "../base/fault.ts";

/** What the disks of a VM besides its first are for. */
export interface GuestDisks {
  /** The largest empty one is for what the pod writes: the guest formats it, encrypted with a key that nobody keeps. */
  readonly scratch: boolean;
  /**
   * Volumes that outlive the VM, by the cloud's ids, in the order in which they are attached. They are never scratch,
   * however empty they are.
   */
  readonly volumes: readonly string[];
}

export const NO_DISKS: GuestDisks = { scratch: false, volumes: [] };

/** @throws Fault invalid_argument */
export function parseGuestDisks(text: string): GuestDisks {
  let document: { readonly scratch?: unknown; readonly volumes?: unknown } | null | undefined;
  try {
    document = JSON.parse(text) as typeof document;
  } catch {
    // said below
  }
  const [scratch, volumes] = [document?.scratch, document?.volumes];
  const known = Array.isArray(volumes) && volumes.every((v): v is string => typeof v === "string");
  if (typeof scratch === "boolean" && known) return { scratch, volumes };
  throw new Fault("invalid_argument", `user-data cannot be used: its list of disks is ${text.trim().slice(0, 100)}`);
}
