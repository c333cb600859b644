import { createHash } from "node:crypto";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { Fault } from "../base/fault.ts";
import { mkdirPrivate, readIfThere, removeTemporaries, writeFileAtomic } from "../base/files.ts";
import type { Logger } from "../base/log.ts";
import { Mutex } from "../base/mutex.ts";
import type { Relay } from "../relay/index.ts";

/** A door's name: the launcher computes the same one. Source: the first 32 hex digits of SHA-256 of the address. */
export function doorOf(containerdAddress: string): string {
  return createHash("sha256").update(containerdAddress).digest("hex").slice(0, 32);
}

/** Path of a door's socket. */
export function doorSocket(runDir: string, door: string): string {
  return join(runDir, "s", `${door}.sock`);
}

/**
 * The Task listeners, one per containerd of the node. Each is remembered in `doors/`, so that the next daemon opens it
 * before a containerd that still runs asks for it.
 */
export class Doors {
  readonly #deps: { readonly runDir: string; readonly relay: Relay; readonly log: Logger };
  readonly #addresses = new Map<string, string>();
  readonly #open = new Set<string>();
  readonly #turn = new Mutex();

  constructor(deps: { readonly runDir: string; readonly relay: Relay; readonly log: Logger }) {
    this.#deps = deps;
  }

  /** Reads what an earlier daemon had open: calls may come through a door that a relay has kept open. */
  async load(): Promise<void> {
    const dir = this.#dir;
    await mkdirPrivate(dir);
    await removeTemporaries(dir);
    for (const name of await readdir(dir)) {
      if (!name.endsWith(".json")) continue; // not ours
      const address = addressIn(await readIfThere(join(dir, name)));
      if (address === undefined) this.#deps.log.warn({ file: name }, "unreadable door is left alone");
      else this.#addresses.set(doorOf(address), address);
    }
  }

  /** Opens what an earlier daemon had open. */
  async reopen(): Promise<void> {
    for (const address of this.#addresses.values()) await this.open(address);
  }

  /** Opens the listener of one containerd and gives its address (`unix://…`). Repeatable. */
  async open(containerdAddress: string): Promise<string> {
    const door = doorOf(containerdAddress);
    const socketPath = doorSocket(this.#deps.runDir, door);
    await this.#turn.run(async () => {
      if (this.#open.has(door)) return;
      const known = this.#addresses.has(door);
      this.#addresses.set(door, containerdAddress);
      try {
        if (!known)
          await writeFileAtomic(join(this.#dir, `${door}.json`), JSON.stringify({ address: containerdAddress }));
        await this.#deps.relay.openDoor({ door, socketPath });
      } catch (e) {
        if (!known) this.#addresses.delete(door);
        throw e;
      }
      this.#open.add(door);
      this.#deps.log.info({ door, containerd: containerdAddress }, "door opened");
    });
    return `unix://${socketPath}`;
  }

  /** The containerd that a door serves. @throws Fault not_found */
  addressOf(door: string): string {
    const address = this.#addresses.get(door);
    if (address === undefined) throw new Fault("not_found", `there is no door ${door}`);
    return address;
  }

  get #dir(): string {
    return join(this.#deps.runDir, "doors");
  }
}

function addressIn(text: string | undefined): string | undefined {
  try {
    const { address } = JSON.parse(text ?? "") as { address?: unknown };
    return typeof address === "string" ? address : undefined;
  } catch {
    return undefined; // not ours; the caller says so
  }
}
