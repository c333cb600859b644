import { type Shape, scalarProblem } from "../model.ts";

/** The parts of botocore's description of a REST-JSON service that are used. */
export interface RestDescription {
  readonly metadata: { readonly protocol: string };
  readonly operations: Readonly<
    Record<
      string,
      {
        readonly http: { readonly method: string; readonly requestUri: string; readonly responseCode?: number };
        readonly input?: { readonly shape: string };
        readonly output?: { readonly shape: string };
      }
    >
  >;
  readonly shapes: Readonly<Record<string, RestShape>>;
}
interface RestShape extends Omit<Shape, "members"> {
  readonly payload?: string;
  readonly members?: Readonly<
    Record<string, { readonly shape: string; readonly location?: string; readonly locationName?: string }>
  >;
}

export interface RestParts {
  readonly uri: Readonly<Record<string, string>>;
  readonly query: URLSearchParams;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Uint8Array | undefined;
}

/** A published description of a REST-JSON service, which is not ours: what it allows of a request and of a reply. */
export class RestModel {
  readonly #description: RestDescription;

  constructor(description: RestDescription) {
    if (description.metadata.protocol !== "rest-json")
      throw new Error(`protocol ${description.metadata.protocol} is not rest-json`);
    this.#description = description;
  }

  /** What is wrong with a request; empty when nothing is. Unknown members of query and body are wrong as well. */
  checkRequest(operation: string, parts: RestParts): string[] {
    const input = this.#description.operations[operation]?.input?.shape;
    return input === undefined ? [`there is no operation ${operation}`] : this.#checkParts(input, parts, operation);
  }

  /** What is wrong with a reply, its status included; empty when nothing is. */
  checkReply(operation: string, status: number, parts: Omit<RestParts, "uri" | "query">): string[] {
    const found = this.#description.operations[operation];
    const wanted = found?.http.responseCode ?? 200;
    const output = found?.output?.shape ?? "";
    return [
      ...(status === wanted ? [] : [`${operation} answers ${status}, not ${wanted}`]),
      ...this.#checkParts(output, { ...parts, uri: {}, query: new URLSearchParams() }, operation),
    ];
  }

  #checkParts(shapeName: string, parts: RestParts, at: string): string[] {
    const shape = this.#need(shapeName);
    const members = Object.entries(shape.members ?? {});
    const body = shape.payload === undefined ? (parseBody(parts.body) as Readonly<Record<string, unknown>>) : {};
    const inBody = new Set(members.filter(([, m]) => m.location === undefined).map(([n, m]) => m.locationName ?? n));
    const inQuery = new Set(
      members.filter(([, m]) => m.location === "querystring").map(([n, m]) => m.locationName ?? n),
    );
    const problems = [
      ...Object.keys(body).filter((name) => !inBody.has(name)),
      ...[...parts.query.keys()].filter((name) => !inQuery.has(name)),
    ].map((name) => `${at}.${name} does not exist`);
    for (const [name, member] of members) {
      if (name === shape.payload) continue;
      const wire = member.locationName ?? name;
      const value =
        member.location === "uri"
          ? parts.uri[wire]
          : member.location === "querystring"
            ? (parts.query.get(wire) ?? undefined)
            : member.location === "header"
              ? parts.headers[wire.toLowerCase()]
              : body[wire];
      if (value === undefined) {
        if (shape.required?.includes(name)) problems.push(`${at} lacks ${wire}`);
      } else problems.push(...this.#checkValue(member.shape, value, `${at}.${wire}`));
    }
    return problems;
  }

  #checkValue(shapeName: string, value: unknown, at: string): string[] {
    const shape = this.#need(shapeName);
    if (shape.type === "structure") {
      const members = shape.members ?? {};
      return Object.entries(value as Readonly<Record<string, unknown>>).flatMap(([name, inner]) => {
        const member = members[name];
        return member === undefined
          ? [`${at}.${name} does not exist`]
          : this.#checkValue(member.shape, inner, `${at}.${name}`);
      });
    }
    if (shape.type === "list") {
      if (!Array.isArray(value)) return [`${at} is not a list`];
      return value.flatMap((item, i) => this.#checkValue(shape.member?.shape ?? "", item, `${at}[${i}]`));
    }
    // Times are seconds in JSON.
    if (shape.type === "timestamp") return Number.isFinite(Number(value)) ? [] : [`${at} is not a time in seconds`];
    const problem = scalarProblem(shape as Shape, String(value));
    return problem === undefined ? [] : [`${at} = ${String(value)}: ${problem}`];
  }

  #need(name: string): RestShape {
    const shape = this.#description.shapes[name];
    if (shape === undefined) throw new Error(`the description lacks shape ${name}`);
    return shape;
  }
}

function parseBody(body: Uint8Array | undefined): unknown {
  return body === undefined || body.length === 0 ? {} : JSON.parse(Buffer.from(body).toString());
}
