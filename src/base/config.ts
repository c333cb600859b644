import type { Static, TSchema } from "typebox";
import { Compile } from "typebox/compile";
import { Value } from "typebox/value";
import { Fault } from "./fault.ts";

/**
 * Checks an object against a schema: defaults are filled in, unknown keys are refused by name, nothing is coerced.
 * @param origin Where it came from (a path, "command line"), for the message.
 * @throws Fault invalid_argument naming the key, the value's problem and the origin
 */
export function parseConfig<S extends TSchema>(schema: S, input: unknown, origin: string): Static<S> {
  const value: unknown = Value.Default(schema, Value.Clone(input));
  const check = Compile(schema);
  if (check.Check(value)) return value as Static<S>;
  const problems = [...check.Errors(value)]
    .filter((e) => e.message !== "schema is false") // the same unknown key, said a second time
    .map((e) => {
      const { additionalProperties } = e.params as { additionalProperties?: string[] };
      const unknown = additionalProperties?.map((key) => `unknown key "${key}"`).join(", ");
      const where = e.instancePath === "" ? "" : `${e.instancePath.slice(1).replaceAll("/", ".")}: `;
      return `${where}${unknown ?? e.message}`;
    });
  throw new Fault("invalid_argument", `${origin}: ${[...new Set(problems)].join("; ")}`, { origin });
}
