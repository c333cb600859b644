/** Small facts that all who share a store agree on: nodes' sessions, join tokens, what became of an epoch. */
export interface FactStore {
  get(name: string): Promise<string | undefined>;
  /** All whose name begins so, by name. */
  list(prefix: string): Promise<ReadonlyMap<string, string>>;
  /**
   * Compare-and-set; undefined stands for "not there", as expected and as next value.
   * @returns whether it was changed
   */
  swap(name: string, expected: string | undefined, next: string | undefined): Promise<boolean>;
  /**
   * Takes or keeps the lead in something that only one adaptor at a time may do; without being asked for again it ends
   * after `ms`. The number is a fencing token: it stays while the lead stays, and grows when another one takes it.
   * @returns undefined while another adaptor leads
   */
  lead(name: string, ms: number): Promise<number | undefined>;
}
