import { type Static, type TSchema, Type } from "typebox";
import { Compile, type Validator } from "typebox/compile";
import { Fault } from "../../base/fault.ts";

// The parts of an OCI runtime spec that this shim reads. Other fields are let through: refuse-unsupported.ts looks at
// those that would be lost. Integers beyond 2^53 (RLIM_INFINITY, PAGE_COUNTER_MAX) arrive as bigint.
// Source: opencontainers/runtime-spec v1.2, config.md and config-linux.md.
const Int = Type.Union([Type.Integer(), Type.BigInt()]);
const Id = Type.Integer({ minimum: 0, maximum: 0xffff_ffff });
const Strings = Type.Array(Type.String());
const open = { additionalProperties: true };

export const OciProcess = Type.Object(
  {
    terminal: Type.Optional(Type.Boolean()),
    consoleSize: Type.Optional(Type.Object({ height: Id, width: Id }, open)),
    user: Type.Optional(
      Type.Object(
        { uid: Id, gid: Id, additionalGids: Type.Optional(Type.Array(Id)), username: Type.Optional(Type.String()) },
        open,
      ),
    ),
    args: Type.Array(Type.String(), { minItems: 1 }),
    env: Type.Optional(Strings),
    cwd: Type.String({ pattern: "^/" }),
    capabilities: Type.Optional(
      Type.Object(
        {
          bounding: Type.Optional(Strings),
          effective: Type.Optional(Strings),
          inheritable: Type.Optional(Strings),
          permitted: Type.Optional(Strings),
          ambient: Type.Optional(Strings),
        },
        open,
      ),
    ),
    rlimits: Type.Optional(Type.Array(Type.Object({ type: Type.String(), hard: Int, soft: Int }, open))),
    noNewPrivileges: Type.Optional(Type.Boolean()),
    apparmorProfile: Type.Optional(Type.String()),
    oomScoreAdj: Type.Optional(Type.Integer({ minimum: -1000, maximum: 1000 })),
    selinuxLabel: Type.Optional(Type.String()),
  },
  open,
);
export type OciProcess = Static<typeof OciProcess>;

export const OciMount = Type.Object(
  {
    destination: Type.String({ minLength: 1 }),
    type: Type.Optional(Type.String()),
    source: Type.Optional(Type.String()),
    options: Type.Optional(Strings),
  },
  open,
);
export type OciMount = Static<typeof OciMount>;

export const OciResources = Type.Object(
  {
    memory: Type.Optional(
      Type.Object(
        {
          limit: Type.Optional(Int),
          reservation: Type.Optional(Int),
          swap: Type.Optional(Int),
          kernel: Type.Optional(Int),
          kernelTCP: Type.Optional(Int),
          swappiness: Type.Optional(Int),
          disableOOMKiller: Type.Optional(Type.Boolean()),
        },
        open,
      ),
    ),
    cpu: Type.Optional(
      Type.Object(
        {
          shares: Type.Optional(Int),
          quota: Type.Optional(Int),
          period: Type.Optional(Int),
          realtimeRuntime: Type.Optional(Int),
          realtimePeriod: Type.Optional(Int),
          cpus: Type.Optional(Type.String()),
          mems: Type.Optional(Type.String()),
        },
        open,
      ),
    ),
    hugepageLimits: Type.Optional(Type.Array(Type.Object({ pageSize: Type.String(), limit: Int }, open))),
  },
  open,
);
export type OciResources = Static<typeof OciResources>;

export const OciDevice = Type.Object(
  {
    path: Type.String(),
    type: Type.String(),
    major: Type.Optional(Int),
    minor: Type.Optional(Int),
    fileMode: Type.Optional(Id),
    uid: Type.Optional(Id),
    gid: Type.Optional(Id),
  },
  open,
);
export type OciDevice = Static<typeof OciDevice>;

export const OciSeccomp = Type.Object(
  {
    defaultAction: Type.String(),
    architectures: Type.Optional(Strings),
    flags: Type.Optional(Strings),
    syscalls: Type.Optional(
      Type.Array(
        Type.Object(
          {
            names: Strings,
            action: Type.String(),
            errnoRet: Type.Optional(Id),
            args: Type.Optional(
              Type.Array(
                Type.Object({ index: Int, value: Int, valueTwo: Type.Optional(Int), op: Type.String() }, open),
              ),
            ),
          },
          open,
        ),
      ),
    ),
  },
  open,
);
export type OciSeccomp = Static<typeof OciSeccomp>;

export const OciSpec = Type.Object(
  {
    ociVersion: Type.String(),
    process: OciProcess,
    root: Type.Object({ path: Type.String({ minLength: 1 }), readonly: Type.Optional(Type.Boolean()) }, open),
    hostname: Type.Optional(Type.String()),
    mounts: Type.Optional(Type.Array(OciMount)),
    annotations: Type.Optional(Type.Record(Type.String(), Type.String())),
    linux: Type.Optional(
      Type.Object(
        {
          sysctl: Type.Optional(Type.Record(Type.String(), Type.String())),
          resources: Type.Optional(OciResources),
          cgroupsPath: Type.Optional(Type.String()),
          namespaces: Type.Optional(
            Type.Array(Type.Object({ type: Type.String(), path: Type.Optional(Type.String()) }, open)),
          ),
          devices: Type.Optional(Type.Array(OciDevice)),
          seccomp: Type.Optional(OciSeccomp),
          rootfsPropagation: Type.Optional(Type.String()),
          maskedPaths: Type.Optional(Strings),
          readonlyPaths: Type.Optional(Strings),
        },
        open,
      ),
    ),
  },
  open,
);
export type OciSpec = Static<typeof OciSpec>;

const compiled = new Map<TSchema, Validator>();

/**
 * Reads one OCI JSON document. Null members count as absent, as Go's encoder means them.
 * @param origin Where the text comes from, for the message.
 * @throws Fault invalid_argument naming the origin, the field and what is wrong with it
 */
export function parseOci<S extends TSchema>(schema: S, text: string, origin: string): Static<S> {
  let value: unknown;
  try {
    value = JSON.parse(text, revive as (this: unknown, key: string, value: unknown) => unknown);
  } catch (cause) {
    throw new Fault("invalid_argument", `${origin} is not JSON: ${(cause as Error).message}`, { origin }, { cause });
  }
  let validator = compiled.get(schema);
  if (validator === undefined) {
    validator = Compile(schema) as unknown as Validator;
    compiled.set(schema, validator);
  }
  if (validator.Check(value)) return value as Static<S>;
  // Errors inside a union come with the union's own error, which says less.
  const errors = [...validator.Errors(value)].filter((e) => e.keyword !== "anyOf");
  const problems = errors.slice(0, 3).map((e) => {
    const field = e.instancePath === "" ? "the document" : fieldName(e.instancePath);
    return `${field} ${e.message}, it is ${brief(at(value, e.instancePath))}`;
  });
  throw new Fault("invalid_argument", `${origin}: ${[...new Set(problems)].join("; ")}`, { origin });
}

function revive(this: unknown, _key: string, value: unknown, context: { readonly source?: string }): unknown {
  if (value === null && !Array.isArray(this)) return undefined;
  if (typeof value === "number" && !Number.isSafeInteger(value) && /^-?\d+$/.test(context.source ?? "")) {
    return BigInt(context.source as string);
  }
  return value;
}

/** "/mounts/3/options" as "mounts[3].options". */
function fieldName(pointer: string): string {
  return pointer
    .slice(1)
    .split("/")
    .map((part, i) =>
      /^\d+$/.test(part) ? `[${part}]` : `${i === 0 ? "" : "."}${part.replaceAll("~1", "/").replaceAll("~0", "~")}`,
    )
    .join("");
}

function at(value: unknown, pointer: string): unknown {
  let current = value;
  for (const part of pointer.split("/").slice(1)) {
    current = (current as Record<string, unknown> | undefined)?.[part.replaceAll("~1", "/").replaceAll("~0", "~")];
  }
  return current;
}

function brief(value: unknown): string {
  if (value === undefined) return "missing";
  const text = JSON.stringify(value, (_key, v: unknown) => (typeof v === "bigint" ? Number(v) : v));
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}
