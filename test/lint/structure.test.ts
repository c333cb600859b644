import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { findCycles, scanImports, sourceFile } from "./imports.ts";
import { findProblems } from "./rules.ts";

/** Problems of one file with one line of code, beside a tree that gives some folders an index. */
function problemsOf(path: string, code: string): string[] {
  const tree = [sourceFile("src/ttrpc/index.ts", ""), sourceFile("src/shim/agent/index.ts", "")];
  return findProblems([...tree, sourceFile(path, code)]).map((p) => p.problem);
}

describe("scanImports", () => {
  it("sees every form of import, and none in comments", () => {
    const found = scanImports(
      "src/a/b.ts",
      [
        'import { x } from "./x.ts";',
        "import {",
        "  type Y,",
        '} from "../y.ts";',
        'import type { Z } from "node:fs";',
        'import "./side.ts";',
        'export { q } from "./q.ts";',
        'export * from "./all.ts";',
        'const lazy = await import("./lazy.ts");',
        '// import { no } from "./comment.ts";',
        '/** import { no } from "./doc.ts"; */',
        'const url = "http://example/"; import("./after-url.ts");',
        'export const text = "not from here";',
      ].join("\n"),
    );
    assert.deepEqual(found.map((i) => i.target ?? i.specifier).sort(), [
      "node:fs",
      "src/a/after-url.ts",
      "src/a/all.ts",
      "src/a/lazy.ts",
      "src/a/q.ts",
      "src/a/side.ts",
      "src/a/x.ts",
      "src/y.ts",
    ]);
  });
});

describe("directions", () => {
  const refused: readonly (readonly [string, string])[] = [
    ["src/base/a.ts", "../gen/x.ts"],
    ["src/ttrpc/a.ts", "../shim/x.ts"],
    ["src/relay/a.ts", "../provider/index.ts"],
    ["src/shim/a.ts", "../adaptor/x.ts"],
    ["src/shim/a.ts", "../guest/x.ts"],
    ["src/shim/task/a.ts", "../../vmm/vmm.ts"],
    ["src/node/a.ts", "../adaptor/x.ts"],
    ["src/adaptor/a.ts", "../node/x.ts"],
    ["src/adaptor/a.ts", "../vmm/vmm.ts"],
    ["src/adaptor/a.ts", "../../providers/registry.ts"],
    ["src/adaptor/a.ts", "../../providers/aws/index.ts"],
    ["src/guest/a.ts", "../shim/x.ts"],
    ["src/guest/a.ts", "../relay/x.ts"],
    ["providers/aws/a.ts", "../local/x.ts"],
    ["providers/aws/a.ts", "../../src/vmm/vmm.ts"],
    ["providers/aws/a.ts", "../../src/adaptor/x.ts"],
    ["providers/local/a.ts", "../registry.ts"],
    ["src/base/a.ts", "../cmd/x.ts"],
    ["src/brand-new/a.ts", "./b.ts"],
  ];
  for (const [from, to] of refused) {
    it(`refuses ${from} -> ${to}`, () => {
      assert.notDeepEqual(problemsOf(from, `import { x } from "${to}";`), []);
      assert.notDeepEqual(problemsOf(from, `import type { X } from "${to}";`), []);
    });
  }
  const allowed: readonly (readonly [string, string])[] = [
    ["src/cmd/a.ts", "../../providers/registry.ts"],
    ["src/cmd/a.ts", "../adaptor/x.ts"],
    ["src/shim/task/a.ts", "../../node/x.ts"],
    ["src/shim/task/a.ts", "../../relay/relay.ts"],
    ["src/shim/hypervisor/a.ts", "../../vmm/vmm.ts"],
    ["src/adaptor/api/a.ts", "../store/x.ts"],
    ["providers/local/a.ts", "../../src/vmm/vmm.ts"],
    ["providers/registry.ts", "./aws/index.ts"],
    ["src/ttrpc/a.ts", "./framing.ts"],
    ["test/e2e/a.ts", "../../src/adaptor/x.ts"],
  ];
  for (const [from, to] of allowed) {
    it(`allows ${from} -> ${to}`, () => assert.deepEqual(problemsOf(from, `import { x } from "${to}";`), []));
  }
});

describe("entering a folder", () => {
  it("goes through its index.ts from outside, and need not inside", () => {
    assert.match(problemsOf("src/shim/task/a.ts", 'import { x } from "../agent/client.ts";').join(), /index\.ts/);
    assert.match(problemsOf("src/relay/a.ts", 'import { x } from "../ttrpc/client.ts";').join(), /index\.ts/);
    assert.deepEqual(problemsOf("src/shim/agent/a.ts", 'import { x } from "./client.ts";'), []);
    assert.deepEqual(problemsOf("src/relay/a.ts", 'import { x } from "../ttrpc/index.ts";'), []);
  });
  it("needs the .ts suffix", () => {
    assert.match(problemsOf("src/relay/a.ts", 'import { x } from "./b";').join(), /suffix/);
  });
});

describe("library jails", () => {
  const jailed: readonly (readonly [string, string, string])[] = [
    ["fastify", "src/node/a.ts", "src/adaptor/api/a.ts"],
    ["@grpc/grpc-js", "src/node/a.ts", "src/shim/hypervisor/a.ts"],
    ["bullmq", "src/adaptor/podvm/a.ts", "src/adaptor/operation/a.ts"],
    ["ioredis", "src/adaptor/podvm/a.ts", "src/adaptor/store/a.ts"],
    ["@aws-sdk/client-ec2", "src/adaptor/podvm/a.ts", "providers/aws/a.ts"],
    ["node:sqlite", "src/node/a.ts", "src/adaptor/store/a.ts"],
    ["commander", "src/node/a.ts", "src/cmd/a.ts"],
  ];
  for (const [library, outside, inside] of jailed) {
    it(`keeps ${library} where it belongs`, () => {
      assert.equal(problemsOf(outside, `import { x } from "${library}";`).length, 1);
      assert.equal(problemsOf(outside, `const x = await import("${library}");`).length, 1);
      assert.deepEqual(problemsOf(inside, `import { x } from "${library}";`), []);
    });
  }
});

describe("files", () => {
  it("have a size limit, a higher one for tests", () => {
    const long = "x;\n".repeat(401);
    assert.equal(problemsOf("src/node/a.ts", long).length, 1);
    assert.equal(problemsOf("src/node/a.test.ts", long).length, 0);
    assert.equal(problemsOf("src/node/a.test.ts", "x;\n".repeat(601)).length, 1);
  });
  it("are named for what is in them", () => {
    for (const name of ["utils", "helpers", "common", "misc"]) {
      assert.equal(problemsOf(`src/node/${name}.ts`, "").length, 1);
      assert.equal(problemsOf(`src/node/${name}/a.ts`, "").length, 1);
    }
  });
  it("read process.env in src/cmd only", () => {
    assert.equal(problemsOf("src/node/a.ts", "const x = process.env.X;").length, 1);
    assert.equal(problemsOf("src/node/a.ts", "// never process.env here").length, 0);
    assert.equal(problemsOf("src/cmd/a.ts", "const x = process.env.X;").length, 0);
  });
});

describe("findCycles", () => {
  it("finds a cycle over three files, once", () => {
    const files = [
      sourceFile("src/a.ts", 'import { b } from "./b.ts";'),
      sourceFile("src/b.ts", 'import type { c } from "./c.ts";'),
      sourceFile("src/c.ts", 'import { a } from "./a.ts";'),
      sourceFile("src/d.ts", 'import { a } from "./a.ts";'),
    ];
    assert.deepEqual(findCycles(files), [["src/a.ts", "src/b.ts", "src/c.ts"]]);
  });
});
