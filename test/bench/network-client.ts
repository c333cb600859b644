// The near end of the pod network's measurements: `network-client.ts ADDRESS STREAM_PORT ECHO_PORT MS TRIPS`. Reads the
// stream for so long, then sends a byte and waits for it, so often. Prints a NetworkSample as JSON.
import { once } from "node:events";
import { connect } from "node:net";
import { oneByOne } from "./measure.ts";

/** What one look at a way through the network gave. */
export interface NetworkSample {
  readonly mbPerSecond: number;
  readonly p50Us: number;
  readonly p99Us: number;
}

const WARM_UP_TRIPS = 50;

const [host = "", streamPort = "", echoPort = "", ms = "", trips = ""] = process.argv.slice(2);

async function throughput(): Promise<number> {
  const socket = connect({ host, port: Number(streamPort) });
  await once(socket, "data"); // the connection's start is not what is measured
  const began = performance.now();
  let bytes = 0;
  socket.on("data", (data: Buffer) => {
    bytes += data.length;
    if (performance.now() - began >= Number(ms)) socket.destroy();
  });
  await once(socket, "close");
  return bytes / 1000 / (performance.now() - began);
}

async function latency(): Promise<{ readonly p50Us: number; readonly p99Us: number }> {
  const socket = connect({ host, port: Number(echoPort), noDelay: true });
  await once(socket, "connect");
  const trip = async (): Promise<void> => {
    const answered = once(socket, "data");
    socket.write("x");
    await answered;
  };
  await oneByOne(trip, WARM_UP_TRIPS);
  const { p50Us, p99Us } = await oneByOne(trip, Number(trips));
  socket.destroy();
  return { p50Us, p99Us };
}

const sample: NetworkSample = { mbPerSecond: await throughput(), ...(await latency()) };
console.log(JSON.stringify(sample));
