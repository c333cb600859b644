// The far end of the pod network's measurements: `network-server.ts STREAM_PORT ECHO_PORT`. Sends to everyone who connects
// to the first for as long as it reads, and back what comes at the second. Prints "ready"; ends with its standard input.
import { createServer } from "node:net";

const [streamPort = "", echoPort = ""] = process.argv.slice(2);
const block = Buffer.alloc(1 << 20, "x");

const stream = createServer((socket) => {
  const more = (): void => {
    while (!socket.destroyed && socket.write(block));
  };
  socket.on("drain", more).on("error", () => undefined); // the reader leaves when it has enough
  more();
});
const echo = createServer({ noDelay: true }, (socket) => {
  socket.on("error", () => undefined).pipe(socket);
});
stream.listen(Number(streamPort), "::", () => echo.listen(Number(echoPort), "::", () => console.log("ready")));
process.stdin.resume().on("end", () => process.exit());
