import { join } from "node:path";
import { withDeadline } from "../../src/base/call.ts";
import { RelayFixture } from "../support/relay-fixture.ts";
import { serveTarget } from "./serve-target.ts";
import { stubForwarder } from "./stub-forwarder.ts";

const START_MS = 20_000;

/** The agent socket of a stock shim's pod: the real relay, its tunnel, and the guest's real forwarder behind it. */
const [folder = ""] = process.argv.slice(2);
process.env.TMPDIR = folder; // the fixture's own files go with it
const fixture = await RelayFixture.create();
const forwarder = stubForwarder(fixture.ca.caPem, folder);
const port = await forwarder.listen(0, "127.0.0.1");
await fixture.relay.connectGuest(fixture.spec(port), withDeadline(START_MS));
const path = join(folder, "agent.ttrpc");
const directVolumesDir = join(folder, "direct-volumes");
await fixture.relay.openAgentSocket({ sandboxId: fixture.sandboxId, path, podUid: "", directVolumesDir });
serveTarget({ path });
