import { Fault } from "../../base/fault.ts";
import type { SandboxStore } from "../store/index.ts";

/** Says no before anything is written, with the numbers. */
export class Admission {
  readonly #sandboxes: SandboxStore;
  readonly #limit: number;

  constructor(deps: { readonly sandboxes: SandboxStore; readonly limit: number }) {
    this.#sandboxes = deps.sandboxes;
    this.#limit = deps.limit;
  }

  /** @throws Fault resource_exhausted when the limit of living sandboxes is reached */
  async checkRoom(): Promise<void> {
    const living = await this.#sandboxes.count(["prepared", "creating", "booting", "ready", "stopping", "lost"]);
    if (living < this.#limit) return;
    throw new Fault(
      "resource_exhausted",
      `all ${this.#limit} sandboxes that limits.sandboxes allows are taken (${living} live)`,
      {
        living,
        limit: this.#limit,
      },
    );
  }
}
