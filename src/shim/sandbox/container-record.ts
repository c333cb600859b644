import { type Static, Type } from "typebox";
import { VolumeRecord } from "../volumes/index.ts";

const closed = { additionalProperties: false } as const;

export const StdioRecord = Type.Object(
  { terminal: Type.Boolean(), stdin: Type.String(), stdout: Type.String(), stderr: Type.String() },
  closed,
);

/** Life of one process, as the next daemon needs it. */
export const ProcessRecord = Type.Object(
  {
    /** "starting": the guest may have been asked. */
    phase: Type.Union([
      Type.Literal("created"),
      Type.Literal("starting"),
      Type.Literal("running"),
      Type.Literal("stopped"),
    ]),
    /** TaskRequest.key of its Start. */
    startKey: Type.Optional(Type.String()),
    exit: Type.Optional(Type.Object({ status: Type.Integer(), atMs: Type.Integer() }, closed)),
  },
  closed,
);
export type ProcessRecord = Static<typeof ProcessRecord>;

export const ExecRecord = Type.Object(
  {
    /** As containerd calls it. */
    execId: Type.String(),
    /** As the guest does. */
    guestId: Type.String(),
    /** TaskRequest.key of its Exec. */
    addKey: Type.Optional(Type.String()),
    /** The process of the OCI runtime spec, JSON as it came. */
    spec: Type.String(),
    stdio: StdioRecord,
    process: ProcessRecord,
  },
  closed,
);
export type ExecRecord = Static<typeof ExecRecord>;

/** One container that exists in the guest. */
export const ContainerRecord = Type.Object(
  {
    role: Type.Object(
      {
        containerType: Type.Union([
          Type.Literal("pod_sandbox"),
          Type.Literal("pod_container"),
          Type.Literal("single_container"),
        ]),
        sandboxContainerId: Type.String(),
        pod: Type.Object({ namespace: Type.String(), name: Type.String(), uid: Type.String() }, closed),
      },
      closed,
    ),
    stdio: StdioRecord,
    /** File of the node that gets the termination message. */
    messageFile: Type.Optional(Type.String()),
    /** Where its root file system came from. Absent in records of earlier versions: the node. */
    rootfs: Type.Optional(Type.Union([Type.Literal("node"), Type.Literal("guest")])),
    /** What is carried on while it lives. Absent in records of earlier versions. */
    volumes: Type.Optional(Type.Array(VolumeRecord)),
    paused: Type.Boolean(),
    /** TaskRequest.key of the last Pause or Resume. */
    pauseKey: Type.Optional(Type.String()),
    init: ProcessRecord,
    execs: Type.Array(ExecRecord),
  },
  closed,
);
export type ContainerRecord = Static<typeof ContainerRecord>;
