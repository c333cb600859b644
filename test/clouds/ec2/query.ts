import { ApiError } from "./api-error.ts";

/** Parameters of a request as a tree: `Filter.1.Value.2=x` is at Filter, 1, Value, 2. */
type Tree = Map<string, Tree | string>;

/** Reads the parameters of one request and remembers which were read, so that one that nobody read can be refused. */
export class Params {
  readonly #tree: Tree;
  readonly #path: string;
  readonly #read: Set<string>;

  constructor(tree: Tree, path = "", read = new Set<string>()) {
    this.#tree = tree;
    this.#path = path;
    this.#read = read;
  }

  /** @throws ApiError MalformedQueryString when a name is both a value and a structure */
  static parse(form: URLSearchParams): Params {
    const root: Tree = new Map();
    for (const [name, value] of form) {
      const steps = name.split(".");
      const last = steps.pop() ?? "";
      let at = root;
      for (const step of steps) {
        const next = at.get(step) ?? new Map<string, Tree | string>();
        if (typeof next === "string")
          throw new ApiError("MalformedQueryString", `The query string is malformed: ${name}`);
        at.set(step, next);
        at = next;
      }
      if (at.has(last)) throw new ApiError("MalformedQueryString", `The parameter ${name} is given twice`);
      at.set(last, value);
    }
    return new Params(root);
  }

  text(name: string): string | undefined {
    const value = this.#tree.get(name);
    if (value === undefined) return undefined;
    if (typeof value !== "string")
      throw new ApiError("InvalidParameterValue", `Value for parameter ${this.#at(name)} is invalid`);
    this.#read.add(this.#at(name));
    return value;
  }

  need(name: string): string {
    const value = this.text(name);
    if (value === undefined || value === "") {
      throw new ApiError("MissingParameter", `The request must contain the parameter ${this.#at(name)}`);
    }
    return value;
  }

  integer(name: string): number | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    if (!/^-?\d+$/.test(text)) {
      throw new ApiError("InvalidParameterValue", `Invalid integer value ${text} for parameter ${this.#at(name)}`);
    }
    return Number(text);
  }

  flag(name: string): boolean | undefined {
    const text = this.text(name);
    if (text === undefined || text === "true" || text === "false")
      return text === undefined ? undefined : text === "true";
    throw new ApiError("InvalidParameterValue", `Invalid boolean value ${text} for parameter ${this.#at(name)}`);
  }

  child(name: string): Params | undefined {
    const value = this.#tree.get(name);
    return value instanceof Map ? new Params(value, this.#at(name), this.#read) : undefined;
  }

  /** Structures of a list; numbered from 1 without a gap. */
  list(name: string): Params[] {
    const members = this.#members(name);
    return members.flatMap((value, i) =>
      value instanceof Map ? [new Params(value, `${this.#at(name)}.${i + 1}`, this.#read)] : [],
    );
  }

  /** Strings of a list; numbered from 1 without a gap. */
  texts(name: string): string[] {
    return this.#members(name).flatMap((value, i) => {
      if (typeof value !== "string") return [];
      this.#read.add(`${this.#at(name)}.${i + 1}`);
      return [value];
    });
  }

  /** Full names of the parameters that were not read. */
  unread(): string[] {
    return this.leaves()
      .map(([name]) => name)
      .filter((name) => !this.#read.has(name));
  }

  /** Every parameter below here, by full name, sorted. */
  leaves(): [string, string][] {
    const found: [string, string][] = [];
    for (const [name, value] of this.#tree) {
      if (typeof value === "string") found.push([this.#at(name), value]);
      else found.push(...new Params(value, this.#at(name)).leaves());
    }
    return found.sort(([a], [b]) => (a < b ? -1 : 1));
  }

  #members(name: string): (Tree | string)[] {
    const value = this.#tree.get(name);
    if (value === undefined) return [];
    if (typeof value === "string") throw new ApiError("InvalidParameterValue", `${this.#at(name)} is a list`);
    return Array.from({ length: value.size }, (_, i) => {
      const member = value.get(String(i + 1));
      if (member === undefined) {
        throw new ApiError("InvalidParameterValue", `The list ${this.#at(name)} is not numbered from 1 without a gap`);
      }
      return member;
    });
  }

  #at(name: string): string {
    return this.#path === "" ? name : `${this.#path}.${name}`;
  }
}
