import assert from "node:assert/strict";
import type { Socket } from "node:net";
import { after, before, describe, it } from "node:test";
import { background, withDeadline } from "../../src/base/call.ts";
import { silentLogger } from "../../src/base/silent-log.ts";
import { joinToGuest, LocalhostDoor } from "../../src/shim/portforward/index.ts";
import { until } from "../e2e/harness/processes.ts";
import { NetworkNamespaces } from "../support/network-namespaces.ts";

const log = silentLogger();

describe("a pod's localhost on the node", () => {
  const namespaces = new NetworkNamespaces();
  let netns: string;
  before(async () => {
    netns = await namespaces.add("pod");
  });
  after(() => namespaces[Symbol.asyncDispose]());

  /** What a connection made in the namespace gets for what it sends. */
  const talk = (port: number, text: string): Promise<string> => {
    const program = `const s = require("net").connect(${port}, "127.0.0.1"); s.on("error", () => process.exit(3));
      s.pipe(process.stdout); s.end(${JSON.stringify(text)});`;
    return namespaces.run("pod", process.execPath, ["-e", program], { timeoutMs: 30_000 });
  };
  const open = (join: (socket: Socket, port: number) => Promise<void>): Promise<LocalhostDoor> =>
    LocalhostDoor.open({ netns, join, log }, withDeadline(30_000));

  it("takes connections to any port of 127.0.0.1 and knows which, also behind the rule of an earlier daemon", async () => {
    for (let daemon = 1; daemon <= 2; daemon += 1) {
      const door = await open(async (socket, port) => {
        let text = "";
        socket.on("data", (d) => {
          text += d;
        });
        socket.on("end", () => socket.end(`${port}: ${text}`));
        socket.resume();
      });
      assert.deepEqual(await Promise.all([talk(80, "a"), talk(65_535, "b")]), ["80: a", "65535: b"]);
      door.close();
    }
    const rules = await namespaces.run("pod", "iptables-save", ["-t", "nat"]);
    assert.equal(rules.split("\n").filter((line) => line.includes("REDIRECT")).length, 1);
  });

  it("carries both directions to the guest and back, and ends what the guest refuses", async () => {
    const input = new Map<string, string>();
    const closed = new Set<string>();
    const killed: string[] = [];
    const agent = {
      async execProcess({ execId }: { execId: string }, process: { Args: string[] }) {
        if (process.Args[1] !== "8080") throw new Error("nothing listens there");
        input.set(execId, "");
      },
      async writeInput({ execId }: { execId: string }, data: Uint8Array, offset: number) {
        assert.equal(offset, input.get(execId)?.length);
        input.set(execId, `${input.get(execId)}${Buffer.from(data)}`);
      },
      async closeInput({ execId }: { execId: string }) {
        closed.add(execId);
      },
      async readOutput({ execId }: { execId: string }, offset: number) {
        await until("all input", 20_000, () => closed.has(execId));
        return Buffer.from(`got ${input.get(execId)}`).subarray(offset, offset + 3_000);
      },
      async signalProcess({ execId }: { execId: string }) {
        killed.push(execId);
      },
    };
    const deps = { agent, containerId: "pod", life: background().signal, log };
    const door = await open((socket, port) => joinToGuest(socket, port, deps));
    assert.equal(await talk(8080, "hello".repeat(20_000)), `got ${"hello".repeat(20_000)}`.slice(0, 100_004));
    await until("the guest's end to be closed", 20_000, () => killed.length === 1);
    await assert.rejects(talk(81, "hello"), /3/);
    door.close();
  });
});
