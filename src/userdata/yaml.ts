/** A module of its own: bundled, a dynamic import of the package itself (CommonJS) gives nothing but `default`. */
export { parse } from "yaml";
