export { type CleanUpDeps, cleanUp } from "./clean-up.ts";
export { type DeleteFlags, parseDeleteFlags } from "./delete-flags.ts";
