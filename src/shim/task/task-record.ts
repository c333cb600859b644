import { type Static, Type } from "typebox";
import { ContainerRecord } from "../sandbox/index.ts";
import { RecordFiles, type RecordFilesDeps } from "./record-files.ts";

const closed = { additionalProperties: false } as const;

/** One task, as the next daemon needs it. */
export const TaskRecord = Type.Object(
  {
    version: Type.Literal(1),
    address: Type.String(),
    namespace: Type.String(),
    id: Type.String(),
    bundle: Type.String(),
    /** TaskRequest.key of its Create. */
    createKey: Type.String(),
    /** Path of containerd's event socket. */
    sink: Type.String(),
    /** What containerd was told. */
    pid: Type.Integer(),
    sandboxId: Type.String(),
    /** Absent while it is being created. */
    container: Type.Optional(ContainerRecord),
  },
  closed,
);
export type TaskRecord = Static<typeof TaskRecord>;

/**
 * `<run dir>/tasks/<key>/task`, as long as a task exists. containerd 1.6 runs the launcher's `delete` after every task,
 * however it ended: without this directory there is nothing to clean up and no Node is booted to find that out.
 */
export class TaskRecords extends RecordFiles<typeof TaskRecord> {
  constructor(deps: RecordFilesDeps) {
    super(deps, { schema: TaskRecord, file: "task", of: "task" });
  }
}
