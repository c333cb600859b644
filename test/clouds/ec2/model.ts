import { ApiError } from "./api-error.ts";
import type { XmlObject, XmlValue } from "./xml.ts";

/** The parts of botocore's service description that are used. Source: botocore/data/ec2/2016-11-15/service-2.json */
interface Member {
  readonly shape: string;
  readonly locationName?: string;
  readonly queryName?: string;
  readonly documentation?: string;
}
export interface Shape {
  readonly type: string;
  readonly members?: Readonly<Record<string, Member>>;
  readonly member?: Member;
  readonly required?: readonly string[];
  readonly enum?: readonly string[];
  readonly min?: number;
  readonly max?: number;
  readonly pattern?: string;
}
export interface ServiceDescription {
  readonly metadata: { readonly apiVersion: string; readonly protocol: string };
  readonly operations: Readonly<
    Record<string, { readonly input?: { readonly shape: string }; readonly output?: { readonly shape: string } }>
  >;
  readonly shapes: Readonly<Record<string, Shape>>;
}

/** Not the action's own: every request has them. */
const COMMON = new Set(["Action", "Version"]);

/**
 * The published description of EC2, which is not ours: says of every request whether the service knows its parameters,
 * and of every reply of the endpoint whether the service could have sent it.
 */
export class Ec2Model {
  readonly #description: ServiceDescription;

  constructor(description: ServiceDescription) {
    if (description.metadata.protocol !== "ec2")
      throw new Error(`protocol ${description.metadata.protocol} is not ec2`);
    this.#description = description;
  }

  get version(): string {
    return this.#description.metadata.apiVersion;
  }

  /** @throws ApiError as EC2 answers a request that it does not understand */
  checkRequest(action: string, form: ReadonlyMap<string, string> | URLSearchParams): void {
    const operation = this.#description.operations[action];
    if (operation === undefined) {
      throw new ApiError("InvalidAction", `The action ${action} is not valid for this web service.`);
    }
    const tree = nest([...form].filter(([name]) => !COMMON.has(name)));
    if (operation.input !== undefined) this.#checkInput(operation.input.shape, tree, "");
    else if (tree.size > 0) throw unknown([...tree.keys()][0] ?? "");
  }

  /** Whether the action's documentation lists a filter of that name. */
  knowsFilter(action: string, name: string): boolean {
    const input = this.#description.operations[action]?.input?.shape ?? "";
    const text = this.#description.shapes[input]?.members?.Filters?.documentation ?? "";
    return (
      text.includes(`<code>${name}</code>`) ||
      (name.startsWith("tag:") && /<code>tag(:&lt;key&gt;)?<\/code>/.test(text))
    );
  }

  /** @returns what the published description does not allow in a reply of the action; empty when it is right */
  checkReply(action: string, reply: XmlObject): string[] {
    const shape = this.#description.operations[action]?.output?.shape;
    // Actions without an output answer with <return>true</return>.
    if (shape === undefined) return Object.keys(reply).filter((name) => name !== "return");
    return this.#checkOutput(shape, reply, action);
  }

  #checkInput(shapeName: string, value: Tree | string, at: string): void {
    const shape = this.#need(shapeName);
    if (shape.type === "structure") this.#checkStructure(shape, value, at);
    else if (shape.type === "list") this.#checkList(shape, value, at);
    else this.#checkScalar(shape, value, at);
  }

  #checkScalar(shape: Shape, value: Tree | string, at: string): void {
    if (typeof value !== "string") throw unknown(`${at}.${[...value.keys()][0]}`);
    const problem = scalarProblem(shape, value);
    if (problem !== undefined)
      throw new ApiError("InvalidParameterValue", `Value (${value}) for parameter ${at} is invalid. ${problem}`);
  }

  #checkStructure(shape: Shape, value: Tree | string, at: string): void {
    if (typeof value === "string")
      throw new ApiError("InvalidParameterValue", `Value (${value}) for parameter ${at} is invalid. It is a structure`);
    const members = new Map(Object.entries(shape.members ?? {}).map(([name, m]) => [queryName(name, m), m] as const));
    for (const [name, inner] of value) {
      const member = members.get(name);
      if (member === undefined) throw unknown(join(at, name));
      this.#checkInput(member.shape, inner, join(at, name));
    }
    for (const name of shape.required ?? []) {
      const wire = queryName(name, shape.members?.[name] ?? { shape: "" });
      if (!value.has(wire)) {
        throw new ApiError("MissingParameter", `The request must contain the parameter ${join(at, wire)}`);
      }
    }
  }

  #checkList(shape: Shape, value: Tree | string, at: string): void {
    if (typeof value === "string")
      throw new ApiError("InvalidParameterValue", `Value (${value}) for parameter ${at} is invalid. It is a list`);
    const { size } = value;
    if (shape.max !== undefined && size > shape.max) {
      throw new ApiError("InvalidParameterValue", `${at} has ${size} members, at most ${shape.max} are allowed`);
    }
    for (let i = 1; i <= size; i++) {
      const inner = value.get(String(i));
      if (inner === undefined) throw unknown(`${at}.${[...value.keys()][i - 1]}`);
      this.#checkInput(shape.member?.shape ?? "", inner, `${at}.${i}`);
    }
  }

  #checkOutput(shapeName: string, value: XmlValue, at: string): string[] {
    const shape = this.#need(shapeName);
    if (value === undefined) return [];
    if (shape.type === "structure") {
      if (typeof value !== "object" || Array.isArray(value) || value instanceof Date)
        return [`${at} is not a structure`];
      const members = new Map(
        Object.entries(shape.members ?? {}).map(([name, m]) => [m.locationName ?? name, m] as const),
      );
      return Object.entries(value as XmlObject).flatMap(([name, inner]) => {
        const member = members.get(name);
        return member === undefined
          ? [`${at}.${name} does not exist`]
          : this.#checkOutput(member.shape, inner, `${at}.${name}`);
      });
    }
    if (shape.type === "list") {
      if (!Array.isArray(value)) return [`${at} is not a list`];
      return value.flatMap((item, i) => this.#checkOutput(shape.member?.shape ?? "", item, `${at}[${i}]`));
    }
    const text = value instanceof Date ? value.toISOString() : value;
    if (typeof text === "object") return [`${at} is not a ${shape.type}`];
    const problem = scalarProblem(shape, String(text));
    return problem === undefined ? [] : [`${at} = ${text}: ${problem}`];
  }

  #need(name: string): Shape {
    const shape = this.#description.shapes[name];
    if (shape === undefined) throw new Error(`the description lacks shape ${name}`);
    return shape;
  }
}

type Tree = Map<string, Tree | string>;

function nest(pairs: readonly (readonly [string, string])[]): Tree {
  const root: Tree = new Map();
  for (const [name, value] of pairs) {
    const steps = name.split(".");
    const last = steps.pop() ?? "";
    let at = root;
    for (const step of steps) {
      const next = at.get(step) ?? new Map<string, Tree | string>();
      if (typeof next === "string") throw unknown(name);
      at.set(step, next);
      at = next;
    }
    at.set(last, value);
  }
  return root;
}

/** How the ec2 protocol names a member. Source: Smithy "ec2Query protocol"; botocore's EC2Serializer. */
function queryName(name: string, member: Member): string {
  if (member.queryName !== undefined) return member.queryName;
  const location = member.locationName;
  return location === undefined ? name : `${location.charAt(0).toUpperCase()}${location.slice(1)}`;
}

/** @returns what the description does not allow of a value in its text form */
export function scalarProblem(shape: Shape, text: string): string | undefined {
  const { type, min, max } = shape;
  if (type === "boolean") return /^(true|false)$/.test(text) ? undefined : "It is a boolean";
  if (type === "timestamp") return Number.isNaN(Date.parse(text)) ? "It is a timestamp" : undefined;
  if (type === "integer" || type === "long" || type === "double" || type === "float") {
    const number = Number(text);
    if (text === "" || Number.isNaN(number)) return `It is a number`;
    if (type !== "double" && type !== "float" && !Number.isInteger(number)) return "It is an integer";
    return (min !== undefined && number < min) || (max !== undefined && number > max)
      ? `It is between ${min ?? "any"} and ${max ?? "any"}`
      : undefined;
  }
  if (shape.enum !== undefined && !shape.enum.includes(text)) return "It is not one of the values that there are";
  if ((min !== undefined && text.length < min) || (max !== undefined && text.length > max)) {
    return `Its length is between ${min ?? 0} and ${max ?? "any"}`;
  }
  if (shape.pattern !== undefined && !new RegExp(`^(?:${shape.pattern})$`).test(text))
    return `It matches ${shape.pattern}`;
  return undefined;
}

function unknown(name: string): ApiError {
  return new ApiError("UnknownParameter", `The parameter ${name} is not recognized`);
}

function join(at: string, name: string): string {
  return at === "" ? name : `${at}.${name}`;
}
