import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import { rejectsStatus, ShimFixture, until } from "../../../test/fakes/shim.ts";
import { Status } from "../../gen/containerd/types/task/task.ts";
import { Code } from "../../ttrpc/index.ts";

let f: ShimFixture;
beforeEach(async () => {
  f = await ShimFixture.create();
});
afterEach(() => f.close());

const PROCESS = "types.containerd.io/opencontainers/runtime-spec/1/Process";
const json = (typeUrl: string, value: unknown) => ({ typeUrl, value: Buffer.from(JSON.stringify(value)) });
const execRequest = (id: string, execId: string, extra = {}) => ({
  id,
  execId,
  terminal: false,
  stdin: "",
  stdout: "/o",
  stderr: "/e",
  spec: json(PROCESS, { args: ["ls"], cwd: "/" }),
  ...extra,
});

describe("exec", () => {
  it("runs beside the container with a name of its own in the guest", async () => {
    const task = f.task();
    await f.run();
    await task.exec(execRequest("c1", "e1"));
    await task.start({ id: "c1", execId: "e1" });
    const [inGuest] = f.relay.agent.execIds("c1");
    assert.ok(inGuest !== undefined && inGuest !== "e1");
    const wait = task.wait({ id: "c1", execId: "e1" });
    f.relay.agent.end("c1", 5, inGuest);
    assert.equal((await wait).exitStatus, 5);
    assert.equal((await task.delete({ id: "c1", execId: "e1" })).exitStatus, 5);
    await until(() => f.sink.topics.includes("/tasks/exit"));
    assert.deepEqual(f.sink.topics.slice(2), ["/tasks/exec-added", "/tasks/exec-started", "/tasks/exit"]);
    assert.equal(f.sink.events.at(-1)?.message.id, "e1");
  });

  it("refuses a name twice, and takes it again after its deletion", async () => {
    const task = f.task();
    await f.run();
    await task.exec(execRequest("c1", "e1"));
    await rejectsStatus(
      task.exec(execRequest("c1", "e1")),
      Code.alreadyExists,
      /container c1 has a process "e1" already/,
    );
    await task.delete({ id: "c1", execId: "e1" });
    await task.exec(execRequest("c1", "e1"));
  });

  it("names what is wrong with its spec", async () => {
    const task = f.task();
    await f.run();
    const wrong = (spec: ReturnType<typeof json>, message: RegExp) =>
      rejectsStatus(task.exec(execRequest("c1", "e1", { spec })), Code.invalidArgument, message);
    await wrong(json(PROCESS, { args: [], cwd: "/" }), /exec spec of e1: process\.args|exec spec of e1: args/);
    await wrong(json("some/Other", {}), /exec spec is of type "some\/Other"/);
    await wrong({ typeUrl: PROCESS, value: Buffer.from("{") }, /exec spec of e1 is not JSON/);
  });

  it("applies the size that a terminal was given before its start", async () => {
    const task = f.task();
    await f.run();
    await rejectsStatus(
      task.resizePty({ id: "c1", execId: "", width: 80, height: 24 }),
      Code.failedPrecondition,
      /has no terminal/,
    );
    await task.exec(execRequest("c1", "e1", { terminal: true }));
    await task.resizePty({ id: "c1", execId: "e1", width: 80, height: 24 });
    await task.start({ id: "c1", execId: "e1" });
    await task.resizePty({ id: "c1", execId: "e1", width: 100, height: 30 });
    assert.deepEqual(
      f.relay.agent.resized.map(({ row, column }) => [row, column]),
      [
        [24, 80],
        [30, 100],
      ],
    );
  });

  it("kills only that process", async () => {
    const task = f.task();
    await f.run();
    await task.exec(execRequest("c1", "e1"));
    await task.start({ id: "c1", execId: "e1" });
    await rejectsStatus(
      task.delete({ id: "c1", execId: "e1" }),
      Code.failedPrecondition,
      /process "e1" of container c1 is running; kill it first/,
    );
    await task.kill({ id: "c1", execId: "e1", signal: 15, all: false });
    assert.equal((await task.wait({ id: "c1", execId: "e1" })).exitStatus, 143);
    assert.equal((await task.state({ id: "c1", execId: "" })).status, Status.RUNNING);
  });

  it("closes stdin through the relay", async () => {
    await f.run();
    await f.task().closeIO({ id: "c1", execId: "", stdin: true });
    assert.equal(f.relay.closedStdin.length, 1);
  });
});
