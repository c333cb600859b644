import { Fault } from "../../base/fault.ts";
import type { AnnotationGate } from "../sandbox/index.ts";

/**
 * What pods may set, from a list of regular expressions that may match anywhere, as Kata's `enable_annotations`.
 * @param where the list's key and file, for whoever wants to change it
 * @throws Fault invalid_argument for what is no regular expression
 */
export function annotationGate(patterns: readonly string[], where: string): AnnotationGate {
  const expressions = patterns.map((pattern) => {
    try {
      return new RegExp(pattern);
    } catch (cause) {
      throw new Fault("invalid_argument", `${where}: "${pattern}" is no regular expression`, {}, { cause });
    }
  });
  return { where, allows: (name) => expressions.some((expression) => expression.test(name)) };
}
