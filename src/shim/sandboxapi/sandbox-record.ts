import { type Static, Type } from "typebox";
import { RecordFiles, type RecordFilesDeps } from "../task/index.ts";

const closed = { additionalProperties: false } as const;

/** One pod of the Sandbox API, as the next daemon needs it. */
export const SandboxRecord = Type.Object(
  {
    version: Type.Literal(1),
    address: Type.String(),
    namespace: Type.String(),
    id: Type.String(),
    bundle: Type.String(),
    /** TaskRequest.key of its CreateSandbox. */
    createKey: Type.String(),
    /** Of its StartSandbox; absent before. */
    startKey: Type.Optional(Type.String()),
    /** What containerd was told. */
    pid: Type.Integer(),
    /** Of its VM; absent before it was asked for. */
    sandboxId: Type.Optional(Type.String()),
    createdAtMs: Type.Integer(),
    /** CreateSandboxRequest in protobuf, base64. */
    request: Type.String(),
    /** The runtime's options, google.protobuf.Any in protobuf, base64; absent: it has none. */
    runtimeOptions: Type.Optional(Type.String()),
    exit: Type.Optional(Type.Object({ status: Type.Integer(), atMs: Type.Integer() }, closed)),
  },
  closed,
);
export type SandboxRecord = Static<typeof SandboxRecord>;

/** `<run dir>/tasks/<key>/sandbox`, from CreateSandbox to ShutdownSandbox. */
export class SandboxRecords extends RecordFiles<typeof SandboxRecord> {
  constructor(deps: RecordFilesDeps) {
    super(deps, { schema: SandboxRecord, file: "sandbox", of: "pod" });
  }
}
