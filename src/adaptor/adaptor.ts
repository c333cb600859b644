import type { Call } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import { VERSION } from "../base/version.ts";
import type { PodVmDefinition } from "../gen/kataremote/podvm/v1/podvm.ts";
import type { ServiceClient } from "../grpc/index.ts";
import { makeCsr, newKeyPair } from "../identity/index.ts";
import { GrpcDoor, type GrpcDoorDeps, openLocalDoor, RestDoor } from "./api/index.ts";
import type { AdaptorConfig } from "./config.ts";
import { type AdaptorDeps, openEngine } from "./engine.ts";
import { checkStorage } from "./storage.ts";

export interface Adaptor {
  /** Resolves when the doors are open and the work that an earlier adaptor left has been taken up. */
  start(): Promise<void>;
  /** Stops working, which hurts no VM: whatever was under way is taken up by the next start. */
  close(): Promise<void>;
  /** Where REST listens; undefined before start. */
  readonly restAddress: string | undefined;
  /** What nodes call, for a node daemon in this process; undefined before start. */
  readonly nodeDoor: ServiceClient<typeof PodVmDefinition> | undefined;
}

interface Opened {
  readonly restAddress: string;
  readonly nodeDoor: ServiceClient<typeof PodVmDefinition>;
}

/** The cloud API adaptor in this process. Nothing happens before start(). */
export function createAdaptor(config: AdaptorConfig, deps: AdaptorDeps): Adaptor {
  let opened = new AsyncDisposableStack();
  let doors: Opened | undefined;
  return {
    get restAddress() {
      return doors?.restAddress;
    },
    get nodeDoor() {
      return doors?.nodeDoor;
    },
    async start() {
      await using parts = new AsyncDisposableStack();
      doors = await open(config, deps, parts);
      opened = parts.move();
      deps.log.info(
        {
          ...{ provider: deps.provider.name, cluster: config.cluster },
          ...{ rest: doors.restAddress, socket: config.grpc.socketPath },
        },
        "adaptor ready",
      );
    },
    async close() {
      doors = undefined;
      await opened.disposeAsync();
    },
  };
}

/** Opens everything, inside out; what is opened goes into `parts`, whose end closes it outside in. */
async function open(config: AdaptorConfig, deps: AdaptorDeps, parts: AsyncDisposableStack): Promise<Opened> {
  const { provider, log } = deps;
  const { service, ca, metrics, operator } = await openEngine(config, deps, parts);
  const doorDeps: GrpcDoorDeps = { service, metrics, log, version: { version: VERSION, provider: provider.name } };
  let ready = false;
  const { host, port, socketPath } = config.rest;
  const restAddress = socketPath === undefined ? { host, port } : { socketPath };
  const rest = await RestDoor.open(restAddress, {
    ...{ service, metrics, log, ...operator },
    ready: () => {
      if (!ready) throw new Fault("unavailable", "the adaptor is starting");
    },
  });
  parts.use(rest);
  const { listen } = config.grpc;
  const admin = { ...operator, service, caPem: ca.caPem, network: listen && networkAddresses(listen) };
  parts.use(await GrpcDoor.openSocket(config.grpc.socketPath, doorDeps, admin));
  if (listen !== undefined) {
    const { keyPem } = newKeyPair();
    const certificatePem = await ca.signServer(makeCsr(keyPem, ""), listen.serverNames);
    const identity = { caPem: ca.caPem, certificatePem, keyPem };
    parts.use(await GrpcDoor.openNetwork(`${listen.host}:${listen.port}`, identity, doorDeps));
    if (listen.joinPort !== undefined) {
      parts.use(await GrpcDoor.openJoin(`${listen.host}:${listen.joinPort}`, identity, doorDeps, operator.tokens));
    }
  }
  ready = true;
  const closing = new AbortController();
  parts.defer(() => closing.abort(new Fault("unavailable", "the adaptor is closing")));
  const nodeDoor = openLocalDoor(doorDeps, closing.signal);
  void reportFindings(config, deps, { signal: closing.signal });
  return { restAddress: rest.address, nodeDoor };
}

/** Where nodes of other machines find this adaptor. */
function networkAddresses(listen: NonNullable<AdaptorConfig["grpc"]["listen"]>) {
  const { port, joinPort, serverNames } = listen;
  const [name = ""] = serverNames;
  return joinPort === undefined ? undefined : { address: `${name}:${port}`, joinAddress: `${name}:${joinPort}` };
}

/** Says early what would make the first pod fail. It also has slow probes done before a pod waits for them. */
async function reportFindings(config: AdaptorConfig, { provider, log }: AdaptorDeps, call: Call): Promise<void> {
  for (const { state, ...finding } of await checkStorage(config, call)) {
    if (state === "error" && !call.signal.aborted) log.error(finding, "the store may lose what it acknowledges");
  }
  try {
    for (const { state, ...finding } of await provider.verify(call)) {
      if (state === "error") log.error(finding, "the provider lacks something that pods need");
      else log.debug(finding, "provider verified");
    }
  } catch (e) {
    if (!call.signal.aborted) log.warn({ err: e }, "the provider cannot be verified");
  }
}
