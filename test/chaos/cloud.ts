/** One VM of a cloud, alive or ended, as it is seen from outside of our programs. */
export interface CloudVm {
  readonly id: string;
  /** Sandboxes that it was made for or belonged to; several names for one sandbox are normal. */
  readonly owners: readonly string[];
  /** ms since the epoch */
  readonly began: number;
  readonly ended: number | undefined;
}

/** Kinds of requests, by what they are for: each cloud has its own names for them. */
export type CloudRequest = "launch" | "end" | "look";

/** How a cloud misbehaves, in words that every cloud translates into its own. */
export type CloudTrouble =
  /** Refused before any effect. `throttle`: too many requests, in the words that this cloud has for it. */
  | {
      readonly kind: "refuse";
      readonly what: CloudRequest;
      readonly how: "throttle" | "429" | "error";
      readonly times: number;
      /** The answer says to come back after so many seconds. */
      readonly retryAfterS?: number;
    }
  | { readonly kind: "delay"; readonly what: CloudRequest; readonly ms: number }
  /** It takes effect, and the answer is no answer, comes after the client gave up, or says that it failed. */
  | {
      readonly kind: "after-effect";
      readonly what: CloudRequest;
      readonly how: "drop" | "late" | "error";
      readonly times: number;
    }
  /** Every request arrives twice. */
  | { readonly kind: "twice" }
  /** So many looks do not show what was just made. */
  | { readonly kind: "hidden"; readonly looks: number }
  /** No capacity for the type, or in the zone, that is tried first; or for nothing anywhere. */
  | { readonly kind: "no-room"; readonly where: "best" | "first-zone" | "everywhere" }
  /** The account may have so many VMs of the usual size. */
  | { readonly kind: "quota"; readonly vms: number }
  /** VMs take so long to end. */
  | { readonly kind: "slow-end"; readonly ms: number }
  /** The next VMs stay in creation: they boot, and the cloud never says that they are made. */
  | { readonly kind: "stuck-creating"; readonly times: number };

/** Where VMs come from in a case. It can be looked into and disturbed without our programs' help. */
export interface Cloud extends AsyncDisposable {
  readonly kind: string;
  /** What the adaptor's environment needs for it. */
  readonly env: NodeJS.ProcessEnv;
  /** Whether it can misbehave so. A case with a trouble that it does not have is not run with it. */
  canHave(trouble: CloudTrouble): boolean;
  /** Misbehaves so from now on. */
  disturb(trouble: CloudTrouble): void;
  /** Ends every trouble that does not end by itself. */
  calm(): void;
  /** Name and configuration of the adaptor's provider. */
  readonly provider: string;
  readonly providerConfig: Readonly<Record<string, unknown>>;
  /** Every VM that ever was, oldest first. */
  history(): readonly CloudVm[];
  /** What costs money, or is left of what did: "instance i-1", "guest process 17". */
  leftovers(): readonly string[];
  /**
   * Kills the newest VM that lives, at once.
   * @param noticed whether the cloud knows: else it goes on to call the VM running
   * @returns what was killed; undefined when no VM lives
   */
  killNewest(noticed: boolean): string | undefined;
}

/** VMs of one owner that lived at the same time: there must be none, at no time. */
export function doubles(history: readonly CloudVm[]): string[] {
  const found: string[] = [];
  for (const [n, a] of history.entries()) {
    for (const b of history.slice(n + 1)) {
      const owner = a.owners.find((o) => b.owners.includes(o));
      if (owner === undefined) continue;
      const together =
        b.began < (a.ended ?? Number.POSITIVE_INFINITY) && a.began < (b.ended ?? Number.POSITIVE_INFINITY);
      if (together) found.push(`${a.id} and ${b.id} lived at the same time for ${owner}`);
    }
  }
  return found;
}
