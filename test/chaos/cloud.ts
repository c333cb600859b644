/** One VM of a cloud, alive or ended, as it is seen from outside of our programs. */
export interface CloudVm {
  readonly id: string;
  /** Sandboxes that it was made for or belonged to; several names for one sandbox are normal. */
  readonly owners: readonly string[];
  /** ms since the epoch */
  readonly began: number;
  readonly ended: number | undefined;
}

/** Where VMs come from in a case. It can be looked into and disturbed without our programs' help. */
export interface Cloud extends AsyncDisposable {
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
