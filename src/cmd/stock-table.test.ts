import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { describe, it } from "node:test";
import { PROVIDER_SETTINGS } from "./stock-providers.ts";
import { readStockSettings } from "./stock-settings.ts";
import { COMMON_SETTINGS, type StockSetting } from "./stock-table.ts";

/** The contract's names: flags with their variable ("" is none), and variables without a flag. */
interface Names {
  readonly flags: Readonly<Record<string, string>>;
  readonly variables: readonly string[];
}

const LIST = new URL("../../test/protocol/golden/stock-settings.json", import.meta.url);
const README = new URL("../node/door/README.md", import.meta.url);
const TABLES: Readonly<Record<string, readonly StockSetting[]>> = { common: COMMON_SETTINGS, ...PROVIDER_SETTINGS };

async function names(): Promise<Readonly<Record<string, Names>>> {
  return JSON.parse(await readFile(LIST, "utf8"));
}

/** A value of the setting's type that asks for something. */
const SAMPLES: Readonly<Record<StockSetting["type"], string>> = {
  ...{ text: "x", int: "7", bool: "true", duration: "5m", list: "a,b", map: "k=v" },
};

function warnings(argv: readonly string[], env: Readonly<Record<string, string>>): string {
  return readStockSettings(argv, env).warnings.join("\n");
}

describe("the names of the contract", () => {
  it("are all in the tables, under the same flag and variable, and nothing else is", async () => {
    for (const [part, { flags, variables }] of Object.entries(await names())) {
      const table = TABLES[part] ?? [];
      const listed = [
        ...Object.entries(flags).map(([flag, env]) => `-${flag} ${env}`),
        ...variables.map((env) => `- ${env}`),
      ];
      assert.deepEqual(table.map(({ flag = "", env = "" }) => `-${flag} ${env}`).sort(), listed.sort(), part);
    }
  });

  it("are taken as flag and as variable: each does something, or a warning names it with the reason", async () => {
    for (const [part, { flags, variables }] of Object.entries(await names())) {
      const provider = part === "common" ? "aws" : part;
      const rows = TABLES[part] ?? [];
      const seen = [
        ...Object.keys(flags).map((flag) => ({ flag, env: flags[flag] })),
        ...variables.map((env) => ({ flag: undefined, env })),
      ];
      for (const { flag, env } of seen) {
        const row = rows.find((r) => (flag === undefined ? r.env === env : r.flag === flag));
        assert.ok(row, `${flag} ${env}`);
        const value = SAMPLES[row.type];
        const given = [
          ...(flag === undefined ? [] : [readStockSettings([provider, `-${flag}=${value}`], {})]),
          ...(env ? [readStockSettings([provider], { [env]: value })] : []),
        ];
        for (const { warnings: said, ...settings } of given) {
          const name = flag ?? env;
          if (row.to === undefined && row.does === undefined) {
            assert.equal(said.length, 1, name);
            assert.ok(said[0]?.includes(`has no meaning here: ${row.note}`), said[0]);
            assert.ok(said[0]?.startsWith(name ?? ""), said[0]);
            continue;
          }
          assert.deepEqual(said, [], name);
          if (row.to !== undefined && !row.to.endsWith(".launchTemplate.name"))
            assert.notEqual(at(settings, row.to), undefined, `${name} is in ${row.to}`);
        }
      }
    }
  });

  it("each have their line in src/node/door/README.md, which says what the code does", async () => {
    const lines = new Set((await readFile(README, "utf8")).split("\n"));
    for (const setting of Object.values(TABLES).flat()) assert.ok(lines.has(line(setting)), line(setting));
  });
});

describe("a variable that nobody knows", () => {
  it("is named when it looks like one of the stock adaptor's", () => {
    for (const name of ["TLS_MAX_VERSION", "PEERPODS_NEW", "IBMCLOUD_ZONE", "ENABLE_MORE", "CACERT_DIR", "VXLAN_NEW"])
      assert.match(warnings(["aws"], { [name]: "1" }), new RegExp(`not known here are ignored: ${name};`));
    assert.equal(warnings(["aws"], { PATH: "/bin", SSH_AUTH_SOCK: "x", TLS_NEW: "", KUBERNETES_PORT: "1" }), "");
  });
});

function at(settings: object, target: string): unknown {
  const [root = "", path = ""] = target.split(":");
  return [root, ...path.split(".")].reduce<unknown>(
    (value, key) => (value as Record<string, unknown> | undefined)?.[key],
    settings,
  );
}

function line({ flag, env, to, does, note }: StockSetting): string {
  const code = (text: string | undefined): string => (text === undefined ? "" : `\`${text}\``);
  const [root = "", path = ""] = to?.split(":") ?? [];
  const file = root === "env" ? "variable" : `${root}.toml`;
  const target = to === undefined ? (does ?? "–") : `${file} \`${path}\``;
  const more = note === undefined ? "" : to === undefined ? ` ${note}` : `; ${note}`;
  return `| ${code(flag)} | ${code(env)} | ${target}${more} |`;
}
