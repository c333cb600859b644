import { Fault } from "../../base/fault.ts";
import { readIfThere, writeFileAtomic } from "../../base/files.ts";

interface Common {
  readonly version: 1;
  readonly hostBootId: string;
  readonly guestPort: number;
  /** Of a VM on a bridge. */
  readonly bridge?: string;
  readonly address?: string;
}

/** What vm.json says. Written before QEMU starts, and again when it runs. */
export type VmState =
  | (Common & { readonly state: "starting" })
  | (Common & {
      readonly state: "running";
      readonly pid: number;
      readonly startTicks: string;
      readonly hostPort: number;
    });

/** @throws Fault internal when the file was written by something else */
export async function readState(path: string): Promise<VmState | undefined> {
  const text = await readIfThere(path);
  if (text === undefined) return undefined;
  const state = JSON.parse(text) as VmState;
  if (state.version !== 1)
    throw new Fault("internal", `${path} has version ${String(state.version)}; this program knows 1`);
  return state;
}

export async function writeState(path: string, state: VmState): Promise<void> {
  await writeFileAtomic(path, JSON.stringify(state));
}
