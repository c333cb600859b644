// Fetches a page through the CRI's port-forward, from the network namespace in which containerd's streaming server
// listens. Arguments: the URL that the CRI gave, a port of the pod, a path. Prints the page.
import { until } from "../harness/processes.ts";
import { ChannelSocket } from "../harness/streaming.ts";

const [url = "", port = "", path = "/"] = process.argv.slice(2);
const stream = await ChannelSocket.open(`${url}?port=${port}`);
stream.send(0, `GET ${path} HTTP/1.0\r\n\r\n`);
// Each channel begins with the port.
const answer = (): Buffer => stream.received(0).subarray(2);
const whole = (): Buffer | undefined => {
  const text = answer().toString("latin1");
  const head = text.indexOf("\r\n\r\n");
  const length = /^Content-Length: (\d+)/im.exec(text.slice(0, head))?.[1];
  if (head < 0 || length === undefined || text.length < head + 4 + Number(length)) return undefined;
  return answer().subarray(head + 4);
};
const page = await until("the whole page", 60_000, whole, () => answer().toString("latin1").slice(0, 500));
process.stdout.write(page, () => process.exit());
