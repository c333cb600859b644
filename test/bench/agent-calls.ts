import { AgentServiceDefinition, ReadStreamRequest, ReadStreamResponse } from "../../src/gen/agent/agent.ts";
import { HealthDefinition } from "../../src/gen/agent/health.ts";
import { STREAM_OFFSET } from "../../src/guestwire/index.ts";
import { createClient, type UnaryCaller } from "../../src/ttrpc/index.ts";

/** Name of a container of the stub agent whose output ends after so many bytes; of any other it never does. */
export function containerWithOutput(bytes: number): string {
  return `bytes-${bytes}`;
}

/** What a container of the stub agent writes in all. */
export function outputBytes(containerId: string): number {
  return Number(/^bytes-(\d+)$/.exec(containerId)?.[1] ?? Number.POSITIVE_INFINITY);
}

/** One Health.Check, typed, as the shim calls it. */
export function healthCheck(caller: UnaryCaller): () => Promise<unknown> {
  const health = createClient(HealthDefinition, caller);
  return () => health.check({ service: "" });
}

/** Reads on in a process's output, as the relay does: each reply is acknowledged by the next request's offset. */
export class OutputReader {
  readonly #caller: UnaryCaller;
  readonly #request: { readonly containerId: string; readonly execId: string };
  bytes = 0;

  constructor(caller: UnaryCaller, request: { readonly containerId: string; readonly execId: string }) {
    this.#caller = caller;
    this.#request = request;
  }

  /** @throws Error at the end of the output */
  async read(len: number): Promise<void> {
    const request = ReadStreamRequest.encode({ ...this.#request, len }).finish();
    const reply = await this.#caller.call(AgentServiceDefinition.fullName, "ReadStdout", request, {
      metadata: [[STREAM_OFFSET, String(this.bytes)]],
    });
    const { data } = ReadStreamResponse.decode(reply);
    if (data.length === 0) throw new Error("the output that is read has ended");
    this.bytes += data.length;
  }

  /** MB/s (10^6 bytes) of reads one after the other, over so many milliseconds. */
  async throughput(len: number, forMs: number): Promise<number> {
    const first = this.bytes;
    const start = performance.now();
    let now = start;
    while (now < start + forMs) {
      await this.read(len);
      now = performance.now();
    }
    return (this.bytes - first) / (now - start) / 1000;
  }
}
