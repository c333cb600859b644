import type { FactStore } from "../fact-store.ts";
import type { RedisDatabase } from "./redis-database.ts";

/** Facts in Redis. The lead is kept by Redis' own clock. */
export class RedisFacts implements FactStore {
  readonly #db: RedisDatabase;

  constructor(db: RedisDatabase) {
    this.#db = db;
  }

  async get(name: string): Promise<string | undefined> {
    return read(String(await this.#db.run("fact", name)));
  }

  async list(prefix: string): Promise<ReadonlyMap<string, string>> {
    const reply = await this.#db.run("facts", prefix);
    const flat = Array.isArray(reply) ? (reply as readonly string[]) : [];
    const found: [string, string][] = [];
    for (let i = 0; i < flat.length; i += 2) found.push([flat[i] ?? "", flat[i + 1] ?? ""]);
    return new Map(found.sort(([a], [b]) => (a < b ? -1 : 1)));
  }

  async swap(name: string, expected: string | undefined, next: string | undefined): Promise<boolean> {
    return (await this.#db.run("swap", name, write(expected), write(next))) === 1;
  }

  async lead(name: string, ms: number): Promise<number | undefined> {
    const token = await this.#db.run("lead", name, Math.ceil(ms));
    return token === "" ? undefined : Number(token);
  }
}

/** "Not there" and an empty text are two things, and a reply knows only the second. */
function write(value: string | undefined): string {
  return value === undefined ? "" : `=${value}`;
}

function read(reply: string): string | undefined {
  return reply === "" ? undefined : reply.slice(1);
}
