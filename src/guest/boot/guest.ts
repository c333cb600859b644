import { mkdirSync, openSync, writeFileSync } from "node:fs";
import { Fault } from "../../base/fault.ts";
import { CONSOLE_KEY_PREFIX, CONSOLE_LISTENING, GUEST_PORT } from "../../guestwire/index.ts";
import { parseUserData } from "../../userdata/index.ts";
import { AGENT_PATHS, type Agent, createAgent, POD_NETWORK_NAMESPACE, spaceText, treePath } from "../agent/index.ts";
import { Forwarder, GuestIdentity, TreeStore } from "../forwarder/index.ts";
import type { GuestNetwork } from "../net/index.ts";
import { Children } from "../system/children.ts";
import { growFilesystem } from "../system/filesystem.ts";
import { tidyWhenQuiet } from "../system/garbage.ts";
import { createGuestLog, type GuestLog } from "../system/guest-log.ts";
import { powerOff, raiseFileLimit, setClock, uptimeMs } from "../system/machine.ts";
import { createNamespace, loopbackUp, setHostname } from "../system/namespaces.ts";
import { protectFromOom } from "../system/oom-score.ts";
import { mountBase } from "./base-mounts.ts";
import { checkFirstBoot, markBooted } from "./first-boot.ts";
import { growPartition } from "./grow-partition.ts";
import { prepareKernel } from "./kernel-settings.ts";
import { isStockSeed } from "./stock-mark.ts";
import { machineFacts, readUserData, type UserDataSource, userDataSources } from "./user-data-source.ts";

/** Time for the last reply (DestroySandbox) to leave before the power goes, ms. */
const FAREWELL_MS = 200;
/** On the root disk, whatever else there is. */
const MARKS = "/opt/kata-remote";
const MINUTE_MS = 60_000;
const MISTAKES_PER_MINUTE = 20;

/**
 * PID 1 of the guest: prepares the machine, listens, and is then agent and forwarder in one. When it cannot go on the
 * machine is switched off, with the reason on the console.
 */
export async function runGuest(): Promise<void> {
  mountBase();
  const log = createGuestLog(openSync("/dev/console", "a"));
  process.on("uncaughtException", (error) => fail(log, error));
  try {
    await boot(log);
  } catch (e) {
    fail(log, e);
    return;
  }
  process.removeAllListeners("uncaughtException");
  process.on("uncaughtException", goOn(log));
}

/** A mistake in one request must not end the pod; a loop of them may. Rejections that nobody handles come here too. */
function goOn(log: GuestLog): (error: unknown) => void {
  let recent = 0;
  setInterval(() => {
    recent = 0;
  }, MINUTE_MS).unref();
  return (error) => {
    recent += 1;
    if (recent > MISTAKES_PER_MINUTE) return fail(log, error);
    const fault = Fault.from(error);
    log.error("unexpected error", { code: fault.code, err: fault.fullMessage, stack: fault.stack?.slice(0, 2000) });
  };
}

async function boot(log: GuestLog): Promise<void> {
  protectFromOom();
  raiseFileLimit();
  process.umask(0o022);
  mkdirSync("/run/kata-remote", { recursive: true, mode: 0o700 });
  makeFolders();
  const children = new Children();
  children.start();

  const end = (): void => {
    log.info("pod has ended");
    setTimeout(powerOff, FAREWELL_MS);
  };
  checkFirstBoot(MARKS);
  // What does not depend on it is done while a cloud's network comes up.
  const reading = readUserData(userDataSources(machineFacts()));
  let volumes: readonly string[] = [];
  const { service: agent, images } = createAgent({ paths: AGENT_PATHS, volumes: () => volumes, children, end, log });
  prepareKernel();
  createNamespace("net", POD_NETWORK_NAMESPACE, loopbackUp);
  const userData = await reading;
  if (isStockSeed(userData.text)) {
    await bootStock(userData.text, agent, children, log);
    afterListening(userData.source, log);
    return;
  }
  const { caPem, disks } = await parseUserData(userData.text);
  volumes = disks.volumes;
  if (disks.scratch) {
    const { mountScratch } = await import("./scratch-disk.ts");
    await mountScratch({ disks, target: AGENT_PATHS.disk, children, log });
    makeFolders();
  }
  const identity = new GuestIdentity(caPem);
  say(`${CONSOLE_KEY_PREFIX}${identity.fingerprint}`);

  const treeDirectory = (treeId: string): string => treePath(AGENT_PATHS, treeId);
  const trees = new TreeStore({ children, directory: treeDirectory, diskText: () => spaceText(AGENT_PATHS.disk) });
  let network: Promise<GuestNetwork> | undefined;
  let listeningMs = 0;
  const forwarder = new Forwarder({
    identity,
    agent,
    trees,
    treeDirectory,
    machine: {
      setClock,
      setHostname,
      listeningMs: () => listeningMs,
      setPodNetwork: async (planJson) => {
        network ??= openNetwork(children);
        return await (await network).apply(planJson);
      },
    },
    diskPath: AGENT_PATHS.disk,
    images,
    log,
  });
  await forwarder.listen(GUEST_PORT);
  listeningMs = uptimeMs();
  say(CONSOLE_LISTENING);
  log.info("listening", { port: GUEST_PORT, uptimeMs: listeningMs, nodeMs: Math.round(performance.now()) });
  afterListening(userData.source, log);
  tidyWhenQuiet();
}

/** Of what containers run and write. */
function makeFolders(): void {
  for (const name of ["trees", "containers"]) mkdirSync(`${AGENT_PATHS.disk}/${name}`, { recursive: true });
}

/** What the pod's start need not wait for. */
function afterListening(source: UserDataSource, log: GuestLog): void {
  void markBooted(MARKS, log);
  growPartition("/", log);
  growFilesystem("/", log);
  if (source === "azure") void import("./azure-ready.ts").then(({ reportReady }) => reportReady(log));
}

/** Under the stock adaptor: it asks nothing of the guest before it dials, so all is ready by then. */
async function bootStock(userData: string, agent: Agent["service"], children: Children, log: GuestLog): Promise<void> {
  const { stockGuest } = await import("./stock-guest.ts");
  const forwarder = await stockGuest({
    userData,
    agent,
    setPodNetwork: async (planJson) => {
      await (await openNetwork(children)).apply(planJson);
    },
    log,
  });
  await forwarder.listen(GUEST_PORT);
  say(CONSOLE_LISTENING);
}

/** Its code is half of the bundle, with the library that checks plans: a boot does not wait for it. */
async function openNetwork(children: Children): Promise<GuestNetwork> {
  const { openGuestNetwork } = await import("../net/index.ts");
  return openGuestNetwork({ children, podNetns: POD_NETWORK_NAMESPACE, dir: "/run/kata-remote" });
}

/** A bare line for whoever reads the console (the adaptor compares the key's fingerprint). */
function say(line: string): void {
  writeFileSync("/dev/console", `${line}\n`, { flag: "a" });
}

function fail(log: GuestLog, thrown: unknown): void {
  const fault = Fault.from(thrown);
  log.error("guest cannot go on, switching off", {
    code: fault.code,
    err: fault.fullMessage,
    stack: fault.stack?.slice(0, 2000),
  });
  setTimeout(powerOff, FAREWELL_MS);
}
