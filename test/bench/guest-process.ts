import { readFileSync } from "node:fs";
import { GuestIdentity } from "../../src/guest/forwarder/index.ts";
import { STREAM_OFFSET } from "../../src/guestwire/index.ts";
import type { ServerCall } from "../../src/ttrpc/index.ts";
import { realForwarder } from "../support/real-forwarder.ts";
import { outputBytes } from "./agent-calls.ts";
import { serveMeasuringProcess } from "./peer-process.ts";

const OUTPUT = Buffer.alloc(1 << 20, 7);

function offsetOf(call: ServerCall): number {
  return Number(call.metadata.find(([key]) => key === STREAM_OFFSET)?.[1] ?? 0);
}

/** The guest's own forwarder, as in a VM, in front of an agent that does nothing but give bytes. */
async function serve(caPath: string, folder: string, address: string): Promise<void> {
  const forwarder = realForwarder({
    folder,
    identity: new GuestIdentity(readFileSync(caPath, "utf8")),
    agent: {
      readStdout: async ({ containerId, len }, call) => {
        const left = Math.max(0, outputBytes(containerId) - offsetOf(call));
        return { data: OUTPUT.subarray(0, Math.min(len, left)) };
      },
      readStderr: async () => ({ data: Buffer.alloc(0) }),
      closeStdin: async () => ({}),
    },
  });
  serveMeasuringProcess(await forwarder.listen(0, address));
}

if (import.meta.main) {
  const [caPath, folder, address] = process.argv.slice(2);
  if (caPath === undefined || folder === undefined || address === undefined) throw new Error("3 arguments are needed");
  await serve(caPath, folder, address);
}
