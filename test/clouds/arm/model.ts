import type { ArmError } from "./arm-error.ts";
import { ArmError as Refusal } from "./arm-error.ts";
import { type Dialect, type Json, type JsonObject, unknownProperty, unparsable } from "./body.ts";

type Type =
  | { readonly kind: "string" | "int" | "float" | "bool" | "datetime" | "any" }
  | { readonly kind: "enum" | "model"; readonly name: string }
  | { readonly kind: "list" | "dict"; readonly of: Type };
interface Field {
  readonly type: Type;
  readonly required: boolean;
  readonly readOnly: boolean;
}
interface Model {
  readonly bases: readonly string[];
  readonly fields: Readonly<Record<string, Field>>;
}
export interface ModelOperation {
  /** `VirtualMachines_CreateOrUpdate` */
  readonly name: string;
  readonly method: string;
  readonly path: string;
  readonly apiVersion: string;
  /** Whether it is required, by name. */
  readonly query: Readonly<Record<string, boolean>>;
  readonly body: Type | null;
  readonly statuses: readonly number[];
  readonly longRunning: boolean;
  readonly page: string | null;
  readonly reply: string | null;
}
/** What describe.py prints of one package. */
export interface ServiceDescription {
  readonly operations: readonly ModelOperation[];
  readonly models: Readonly<Record<string, Model>>;
  readonly enums: Readonly<Record<string, readonly string[]>>;
}

/** Of paging and of replies that the generated client drops. */
const PAGED = new Set(["value", "nextLink", "count"]);

/**
 * A published description that is not ours (the models of Azure's Python SDK): says of every request whether the service
 * knows its parameters, and of every reply of the endpoint whether the service could have sent it.
 */
export class ArmModel {
  readonly #services: Readonly<Record<Dialect, ServiceDescription>>;
  readonly #operations = new Map<string, { readonly operation: ModelOperation; readonly dialect: Dialect }>();

  constructor(services: Readonly<Record<Dialect, ServiceDescription>>) {
    this.#services = services;
    for (const dialect of ["compute", "network"] as const) {
      for (const operation of services[dialect].operations) {
        this.#operations.set(keyOf(operation.method, operation.path), { operation, dialect });
      }
    }
  }

  /** @returns undefined for what the packages do not have, such as resource groups */
  find(method: string, template: string): ModelOperation | undefined {
    return this.#operations.get(keyOf(method, template))?.operation;
  }

  /** @throws ArmError as the service answers a request that it does not understand */
  checkRequest(
    method: string,
    template: string,
    request: { readonly query: ReadonlyMap<string, string>; readonly body: JsonObject | undefined },
  ): void {
    const found = this.#operations.get(keyOf(method, template));
    if (found === undefined) return;
    const { operation, dialect } = found;
    const known = new Map(Object.entries(operation.query).map(([name, required]) => [name.toLowerCase(), required]));
    for (const name of request.query.keys()) {
      if (!known.has(name.toLowerCase()) && !/^\$?skiptoken$/i.test(name)) {
        throw new Refusal(400, "InvalidParameter", `The query parameter '${name}' is not recognized.`, {
          target: name,
        });
      }
    }
    if (operation.body === null) {
      if (request.body !== undefined && Object.keys(request.body).length > 0) {
        throw new Refusal(400, "InvalidRequestContent", `The operation ${operation.name} takes no body.`);
      }
      return;
    }
    const problem = this.#check(operation.body, request.body ?? {}, { dialect, at: "", request: true })[0];
    if (problem !== undefined) throw problem;
  }

  /** @returns what the description does not allow in a reply; empty when it is right */
  checkReply(method: string, template: string, status: number, body: Json | undefined): string[] {
    const found = this.#operations.get(keyOf(method, template));
    if (found === undefined || status >= 400) return [];
    const { operation, dialect } = found;
    const problems = operation.statuses.includes(status) ? [] : [`${operation.name}: status ${status}`];
    const context = { dialect, request: false };
    const say = (type: Type, value: Json, at: string): string[] =>
      this.#check(type, value, { ...context, at }).map((e) => `${operation.name}: ${e.message}`);
    if (operation.page !== null && status === 200) {
      // Some lists are old, and are not in pages.
      const page: JsonObject = Array.isArray(body) ? { value: body } : ((body ?? {}) as JsonObject);
      const other = Object.keys(page).filter((name) => !PAGED.has(name));
      problems.push(...other.map((name) => `${operation.name}: ${name} beside value`));
      const type: Type = { kind: "list", of: { kind: "model", name: operation.page } };
      return [...problems, ...say(type, page.value, "value")];
    }
    if (operation.reply === null || body === undefined) return problems;
    return [...problems, ...say({ kind: "model", name: operation.reply }, body, "")];
  }

  /** Whether a value is of one of the published models. */
  checkValue(dialect: Dialect, model: string, value: Json): string[] {
    return this.#check({ kind: "model", name: model }, value, { dialect, at: "", request: false }).map(
      (e) => e.message,
    );
  }

  #check(type: Type, value: Json, at: Context): ArmError[] {
    if (value === undefined || value === null || type.kind === "any") return [];
    if (type.kind === "model") return this.#checkModel(type.name, value, at);
    if (type.kind === "list") {
      if (!Array.isArray(value)) return [unparsable(at.dialect, at.at, "is not a list")];
      return value.flatMap((item: Json, i) => this.#check(type.of, item, { ...at, at: `${at.at}[${i}]` }));
    }
    if (type.kind === "dict") {
      if (typeof value !== "object" || Array.isArray(value)) return [unparsable(at.dialect, at.at, "is not an object")];
      return Object.entries(value).flatMap(([key, item]) =>
        this.#check(type.of, item, { ...at, at: join(at.at, key) }),
      );
    }
    const problem = this.#scalarProblem(type, value);
    return problem === undefined ? [] : [unparsable(at.dialect, at.at, problem)];
  }

  #checkModel(name: string, value: Json, at: Context): ArmError[] {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      return [unparsable(at.dialect, at.at, "is not an object")];
    }
    const fields = this.#fields(at.dialect, name);
    const problems: ArmError[] = [];
    for (const [key, inner] of Object.entries(value as JsonObject)) {
      const field = fields.get(key);
      if (inner === undefined) continue; // not on the wire
      if (field === undefined) problems.push(unknownProperty(at.dialect, join(at.at, key), name));
      // What only the service says is ignored in a request: clients send back what they have read.
      else if (!(at.request && field.readOnly))
        problems.push(...this.#check(field.type, inner, { ...at, at: join(at.at, key) }));
    }
    for (const [key, field] of fields) {
      const given = (value as JsonObject)[key];
      if (!field.required || (at.request && field.readOnly) || (given !== undefined && given !== null)) continue;
      const message = `Required parameter '${join(at.at, key)}' is missing (null).`;
      problems.push(new Refusal(400, "InvalidParameter", message, { target: join(at.at, key) }));
    }
    return problems;
  }

  #fields(dialect: Dialect, name: string): Map<string, Field> {
    const model = this.#services[dialect].models[name];
    if (model === undefined) throw new Error(`the description of ${dialect} lacks ${name}`);
    const inherited = model.bases.flatMap((base) => [...this.#fields(dialect, base)]);
    return new Map([...inherited, ...Object.entries(model.fields)]);
  }

  #scalarProblem(type: Type, value: Json): string | undefined {
    if (type.kind === "bool") return typeof value === "boolean" ? undefined : "is not a boolean";
    if (type.kind === "int") return Number.isInteger(value) ? undefined : "is not an integer";
    if (type.kind === "float") return typeof value === "number" ? undefined : "is not a number";
    if (typeof value !== "string") return "is not a string";
    if (type.kind === "datetime") return Number.isNaN(Date.parse(value)) ? "is not a time" : undefined;
    if (type.kind !== "enum" || OPEN.has(type.name)) return undefined;
    const values = [
      ...(this.#services.compute.enums[type.name] ?? []),
      ...(this.#services.network.enums[type.name] ?? []),
    ];
    return values.some((v) => v.toLowerCase() === value.toLowerCase())
      ? undefined
      : `'${value}' is not one of its values`;
  }
}

/** The list of sizes in the SDK is frozen and old; the service goes by its skus. */
const OPEN = new Set(["VirtualMachineSizeTypes"]);

interface Context {
  readonly dialect: Dialect;
  readonly at: string;
  readonly request: boolean;
}

/** Parameters of the path have other names in other generators. */
function keyOf(method: string, template: string): string {
  return `${method} ${template.replace(/\{[^}]*\}/g, "{}").toLowerCase()}`;
}

function join(at: string, name: string): string {
  return at === "" ? name : `${at}.${name}`;
}
