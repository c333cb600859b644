import { afterEach } from "node:test";
import { currentState, hasReports } from "./failure-report.ts";

// At the root of whichever test file imports this, so that no test has to ask for it. Programs that are no tests (chaos)
// would become some by the hook alone. Source: Node's test runner sets this for the processes of test files.
if (process.env.NODE_TEST_CONTEXT !== undefined) {
  afterEach(async (context) => {
    // Node 24 has `passed` (test runner, TestContext), its types have not. A suite's context has none.
    const { passed, name } = context as { readonly name: string; readonly passed?: boolean };
    if (passed !== false || !hasReports()) return;
    console.error(`--- state after "${name}" failed ---\n${await currentState()}\n--- end of state ---`);
  });
}
