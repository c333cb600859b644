import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { createServer as createTlsServer } from "node:tls";
import { RelayFixture } from "../../test/support/relay-fixture.ts";
import { withDeadline } from "../base/call.ts";
import { makeSelfSigned, newKeyPair } from "../identity/index.ts";
import { Dialer } from "./tls-dial.ts";

/** Before the guest takes its first connection, and for each one that it takes, given up by its dialler or not, ms. */
const BOOT_MS = 2_500;
const BUSY_MS = 400;

describe("dialling a guest", () => {
  it("reaches one that is slower than dials come, which works through all of those that were given up", async () => {
    await using fixture = await RelayFixture.create();
    const { keyPem } = newKeyPair();
    const guest = createTlsServer({ key: keyPem, cert: makeSelfSigned(keyPem, "guest") });
    guest.on("tlsClientError", () => undefined);
    const waiting: Socket[] = [];
    const door = createServer({ pauseOnConnect: true }, (socket) => {
      socket.on("error", () => undefined);
      waiting.push(socket);
    });
    door.listen(0, "127.0.0.1");
    await once(door, "listening");
    let over = false;
    const work = (async () => {
      await delay(BOOT_MS);
      while (!over) {
        await delay(waiting.length === 0 ? 10 : BUSY_MS);
        const socket = waiting.shift();
        if (socket !== undefined) guest.emit("connection", socket);
      }
    })();
    const { port } = door.address() as AddressInfo;
    const { identity, sandboxId: serverName } = fixture;
    try {
      const target = { addresses: ["127.0.0.1"], port, identity, serverName };
      const peer = await new Dialer().dial(target, withDeadline(45_000));
      assert.notEqual(peer.key, "");
      peer.socket.destroy();
    } finally {
      over = true;
      await work;
      for (const socket of waiting) socket.destroy();
      door.close();
    }
  });
});
