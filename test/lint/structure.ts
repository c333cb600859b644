// Checks what the linter's own rules cannot express: who may import whom, library jails, cycles, sizes and names.

import { readSources, repositoryRoot } from "./imports.ts";
import { findProblems } from "./rules.ts";

const root = repositoryRoot(import.meta.dirname);
const files = readSources(root, ["src", "providers", "deploy", "test"], (path) => path.startsWith("src/gen/"));
const problems = findProblems(files);
for (const { where, problem } of problems) console.error(`${where}: ${problem}`);
console.log(`structure: ${files.length} files, ${problems.length} problems`);
if (problems.length > 0 || files.length === 0) process.exitCode = 1;
