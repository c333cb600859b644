import { createHash } from "node:crypto";
import { type Call, withDeadline } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { Logger } from "../../base/log.ts";
import { backoffMs, sleep } from "../../base/retry.ts";
import type { AdaptorEvent, PodName } from "../podvm/index.ts";
import type { KubeReader } from "./kube-reader.ts";

export interface KubeEventsDeps {
  readonly cluster: Pick<KubeReader, "get" | "create" | "namespace">;
  /** Name of the adaptor's own pod: what an event is about that is about no pod of a sandbox. */
  readonly podName: string;
  readonly log: Logger;
}

interface Subject {
  readonly namespace: string;
  readonly name: string;
  readonly uid?: string;
}

/** Told as Normal; all others are Warnings. */
const NORMAL: ReadonlySet<AdaptorEvent["kind"]> = new Set(["RecoveryOver", "NodeForgotten", "OrphanRemoved"]);
const COMPONENT = "kata-remote-adaptor";
const POST_MS = 10_000;
const TRIES = 4;
/** Events that wait for the API server; more are left out, and the log says how many. */
const MOST_WAITING = 1000;
/** Source: kubernetes/kubernetes, pkg/apis/core/validation/events.go (NoteLengthLimit), bytes. */
const MAX_MESSAGE = 1024;
/** Source: Kubernetes' rules for names and namespaces; they become part of a path. */
const NAME = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/;

/**
 * Posts what operators should hear of as Kubernetes Events (core/v1): at the sandbox's pod, else at the adaptor's. One
 * after the other and nobody waits for it: when the cluster cannot be asked an event is left out, it is in the log and in
 * `/v1/events` in any case. Needs `create` on `events` in all namespaces that have pods.
 */
export class KubeEvents implements AsyncDisposable {
  readonly #deps: KubeEventsDeps;
  readonly #closing = new AbortController();
  #posting: Promise<void> = Promise.resolve();
  #waiting = 0;
  #left = 0;
  #self: Subject | undefined;

  constructor(deps: KubeEventsDeps) {
    this.#deps = deps;
  }

  /** @param pod of the sandbox that it is about */
  post(event: AdaptorEvent, pod: PodName | undefined): void {
    if (this.#closing.signal.aborted) return;
    if (this.#waiting >= MOST_WAITING) {
      if (this.#left++ === 0)
        this.#deps.log.warn("Kubernetes Events are left out: the API server is too slow for them");
      return;
    }
    this.#waiting++;
    this.#posting = this.#posting.then(async () => {
      try {
        await this.#post(event, pod);
      } catch (err) {
        if (!this.#closing.signal.aborted) this.#deps.log.warn({ event: event.kind, err }, remedyOf(err));
      } finally {
        this.#waiting--;
      }
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new Fault("cancelled", "the adaptor is closing"));
    await this.#posting;
  }

  async #post(event: AdaptorEvent, pod: PodName | undefined): Promise<void> {
    const call: Call = this.#closing;
    const about = isPod(pod) ? pod : await this.#own(call);
    const object = eventObject(event, about, this.#deps.podName);
    for (let tries = 1; ; tries++) {
      try {
        await this.#deps.cluster.create(
          `/api/v1/namespaces/${about.namespace}/events`,
          object,
          withDeadline(POST_MS, call),
        );
        return;
      } catch (e) {
        const fault = Fault.from(e);
        if (fault.code === "already_exists") return; // told before: the answer was lost, or another adaptor was first
        if (fault.code !== "unavailable" || tries === TRIES) throw fault;
        await sleep(backoffMs(tries, 500, 10_000), call);
      }
    }
  }

  /** The adaptor's own pod. Without its uid `kubectl describe` does not show the event, `kubectl get events` does. */
  async #own(call: Call): Promise<Subject> {
    if (this.#self !== undefined) return this.#self;
    const { cluster, podName: name } = this.#deps;
    const namespace = await cluster.namespace();
    const path = `/api/v1/namespaces/${namespace}/pods/${name}`;
    const pod = await cluster
      .get<{ metadata?: { uid?: string } }>(path, withDeadline(POST_MS, call))
      .catch(() => undefined); // it may not be allowed
    const uid = pod?.metadata?.uid;
    this.#self = { namespace, name, ...(uid === undefined ? {} : { uid }) };
    return this.#self;
  }
}

/** As the API server takes it. Its name follows from what it tells, so that it is there once. */
function eventObject(event: AdaptorEvent, about: Subject, instance: string): object {
  const { at, kind, message } = event;
  const { namespace, name, uid } = about;
  const time = `${at.slice(0, 19)}Z`; // metav1.Time has whole seconds
  const id = createHash("sha256")
    .update(JSON.stringify([event, about]))
    .digest("hex")
    .slice(0, 16);
  return {
    ...{ apiVersion: "v1", kind: "Event" },
    metadata: { namespace, name: `${name.slice(0, 200).replace(/[.-]+$/, "")}.${id}` },
    involvedObject: { apiVersion: "v1", kind: "Pod", namespace, name, ...(uid === undefined ? {} : { uid }) },
    ...{ reason: kind, message: shortened(message), type: NORMAL.has(kind) ? "Normal" : "Warning" },
    ...{ firstTimestamp: time, lastTimestamp: time, count: 1 },
    ...{ source: { component: COMPONENT }, reportingComponent: COMPONENT, reportingInstance: instance.slice(0, 128) },
  };
}

/** Cut between two characters. */
function shortened(message: string): string {
  const bytes = Buffer.from(message);
  if (bytes.length <= MAX_MESSAGE) return message;
  let end = MAX_MESSAGE - 3;
  while (((bytes[end] ?? 0) & 0xc0) === 0x80) end--;
  return `${bytes.subarray(0, end).toString()}...`;
}

/** Sandboxes that no kubelet made have no pod of the cluster. */
function isPod(pod: PodName | undefined): pod is PodName {
  return pod !== undefined && NAME.test(pod.namespace) && NAME.test(pod.name) && pod.uid !== "";
}

function remedyOf(error: unknown): string {
  const denied = Fault.from(error).code === "permission_denied";
  const remedy = "let its service account create events, or set kubernetes.events = false";
  return denied ? `the adaptor may not post a Kubernetes Event: ${remedy}` : "a Kubernetes Event could not be posted";
}
