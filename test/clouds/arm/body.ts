import { ArmError } from "./arm-error.ts";

export type Json = string | number | boolean | null | undefined | readonly Json[] | JsonObject;
export interface JsonObject {
  readonly [name: string]: Json;
}

/** Which service reads a body: they word their refusals differently. */
export type Dialect = "compute" | "network";

/**
 * Reads the body of a request and remembers what was read, so that nothing is ignored: what a handler has not asked for
 * is refused before the request has any effect.
 */
export class Body {
  readonly path: string;
  readonly #value: JsonObject;
  readonly #dialect: Dialect;
  readonly #read = new Set<string>();
  readonly #children: Body[] = [];

  constructor(value: Json, dialect: Dialect, path = "") {
    if (value !== undefined && value !== null && (typeof value !== "object" || Array.isArray(value))) {
      throw unparsable(dialect, path, "is not an object");
    }
    this.#value = (value ?? {}) as JsonObject;
    this.#dialect = dialect;
    this.path = path;
  }

  has(name: string): boolean {
    return this.#value[name] !== undefined && this.#value[name] !== null;
  }

  text(name: string): string | undefined {
    return this.#scalar(name, "string") as string | undefined;
  }

  flag(name: string): boolean | undefined {
    return this.#scalar(name, "boolean") as boolean | undefined;
  }

  number(name: string): number | undefined {
    return this.#scalar(name, "number") as number | undefined;
  }

  /** @throws ArmError as the service does when it is missing */
  need(name: string): string {
    const value = this.text(name);
    if (value === undefined || value === "") {
      const message = `Required parameter '${name}' is missing (null).`;
      throw this.#dialect === "compute"
        ? new ArmError(400, "InvalidParameter", message, { target: this.#at(name) })
        : new ArmError(400, "InvalidRequestFormat", `Cannot parse the request. ${this.#at(name)} is missing`);
    }
    return value;
  }

  /** One of a published enumeration; letters of either case. */
  choice<T extends string>(name: string, values: readonly T[]): T | undefined {
    const value = this.text(name);
    if (value === undefined) return undefined;
    const known = values.find((v) => v.toLowerCase() === value.toLowerCase());
    if (known === undefined) {
      throw new ArmError(
        400,
        this.#dialect === "compute" ? "InvalidParameter" : "InvalidRequestFormat",
        `The value '${value}' of parameter '${this.#at(name)}' is not allowed. Allowed values are ${values.join(", ")}.`,
        { target: this.#at(name) },
      );
    }
    return known;
  }

  /** @returns an empty one when there is none */
  child(name: string): Body {
    this.#read.add(name);
    const child = new Body(this.#value[name], this.#dialect, this.#at(name));
    this.#children.push(child);
    return child;
  }

  items(name: string): readonly Body[] {
    const list = this.#list(name);
    const items = list.map((value, i) => new Body(value, this.#dialect, `${this.#at(name)}[${i}]`));
    this.#children.push(...items);
    return items;
  }

  texts(name: string): readonly string[] {
    return this.#list(name).map((value) => {
      if (typeof value !== "string") throw unparsable(this.#dialect, this.#at(name), "is not a list of strings");
      return value;
    });
  }

  /** Names and texts, e.g. tags. */
  map(name: string): ReadonlyMap<string, string> | undefined {
    if (!this.has(name)) return undefined;
    const child = this.child(name);
    return new Map(Object.keys(child.#value).map((key) => [key, child.text(key) ?? ""] as const));
  }

  /** Takes it as it is: it is only stored and shown again. */
  keep(name: string): Json {
    this.#read.add(name);
    return this.#value[name];
  }

  /** Paths that were sent and that nobody asked for. */
  unread(): readonly string[] {
    const own = Object.keys(this.#value).filter((name) => !this.#read.has(name) && this.#value[name] !== undefined);
    return [...own.map((name) => this.#at(name)), ...this.#children.flatMap((c) => c.unread())];
  }

  #scalar(name: string, type: "string" | "boolean" | "number"): Json {
    this.#read.add(name);
    const value = this.#value[name];
    if (value === undefined || value === null) return undefined;
    // Numbers and flags in quotes are taken, as Newtonsoft's reader of the services does.
    if (type === "boolean" && (value === "true" || value === "false")) return value === "true";
    if (type === "number" && typeof value === "string" && /^-?\d+$/.test(value)) return Number(value);
    if (typeof value !== type) throw unparsable(this.#dialect, this.#at(name), `is not a ${type}`);
    return value;
  }

  #list(name: string): readonly Json[] {
    this.#read.add(name);
    const value = this.#value[name];
    if (value === undefined || value === null) return [];
    if (!Array.isArray(value)) throw unparsable(this.#dialect, this.#at(name), "is not a list");
    return value as readonly Json[];
  }

  #at(name: string): string {
    return this.path === "" ? name : `${this.path}.${name}`;
  }
}

/** The services' answer to JSON that is not of the published form. */
export function unparsable(dialect: Dialect, path: string, problem: string): ArmError {
  if (dialect === "compute") return new ArmError(400, "BadRequest", `Error converting value: '${path}' ${problem}.`);
  const details = [{ code: "InvalidJson", message: `Error converting value. Path '${path}' ${problem}.` }];
  return new ArmError(400, "InvalidRequestFormat", "Cannot parse the request.", { details });
}

/** The services' answer to a property that does not exist. */
export function unknownProperty(dialect: Dialect, path: string, owner = "Object"): ArmError {
  const name = path.split(".").at(-1) ?? path;
  const message = `Could not find member '${name}' on object of type '${owner}'. Path '${path}'.`;
  if (!path.includes(".")) {
    return new ArmError(
      400,
      "InvalidRequestContent",
      `The request content was invalid and could not be deserialized: '${message}'.`,
    );
  }
  if (dialect === "compute") return new ArmError(400, "BadRequest", message, { target: path });
  return new ArmError(400, "InvalidRequestFormat", "Cannot parse the request.", {
    details: [{ code: "InvalidJson", message }],
  });
}
