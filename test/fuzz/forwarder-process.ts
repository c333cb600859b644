import { join } from "node:path";
import { AgentServiceDefinition } from "../../src/gen/agent/agent.ts";
import { GuestDefinition } from "../../src/gen/kataremote/guest/v1/guest.ts";
import { CertificateAuthority, makeCsr, newKeyPair } from "../../src/identity/index.ts";
import { createClient, TtrpcClient } from "../../src/ttrpc/index.ts";
import { dialTls } from "./dial.ts";
import { serveTarget } from "./serve-target.ts";
import { stubForwarder } from "./stub-forwarder.ts";

/** What an attacker of the forwarder needs: here it has everything but the guest's own key. */
export interface ForwarderReady {
  readonly port: number;
  readonly caPem: string;
  readonly keyPem: string;
  readonly certPem: string;
}

const [folder = ""] = process.argv.slice(2);
const ca = await CertificateAuthority.open(join(folder, "ca"));
const forwarder = stubForwarder(ca.caPem, folder);
const port = await forwarder.listen(0, "127.0.0.1");
const { keyPem } = newKeyPair();
const ready: ForwarderReady = {
  port,
  keyPem,
  caPem: ca.caPem,
  certPem: await ca.signNode(makeCsr(keyPem, ""), "node-1"),
};

const connection = new TtrpcClient(await dialTls(ready));
const guest = createClient(GuestDefinition, connection);
const { csrPem } = await guest.enroll({});
await guest.configure({
  sandboxId: "sandbox",
  certificatePem: await ca.signGuest(csrPem, "sandbox"),
  nowUnixNano: 0n,
  hostname: "",
  podNetworkJson: "",
});
await createClient(AgentServiceDefinition, connection).startContainer({ containerId: "c1" });
connection.close();
serveTarget(ready);
