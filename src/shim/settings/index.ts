export { annotationGate } from "./annotation-gate.ts";
export { RuntimeOptions } from "./runtime-options.ts";
