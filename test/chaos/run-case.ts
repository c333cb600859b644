import { setTimeout as delay } from "node:timers/promises";
import { type ChaosCase, endsNode, endsPod, type Hit, type Trouble } from "./chaos-case.ts";
import { doubles } from "./cloud.ts";
import { hasRealVms } from "./clouds.ts";
import { messageOf, type Pod } from "./containerd-stand-in.ts";
import { strike } from "./faults.ts";
import type { World } from "./world.ts";

/** What a case breaks: `leaked` something is left, `lost` a pod, `stuck` something does not end. */
export interface Problem {
  readonly kind: "leaked" | "lost" | "stuck";
  readonly text: string;
}

const CALL_BOUND_MS = 75_000;
const BOUND_MS = 30_000;
/** In a world that nothing has happened to yet, or in which all is whole again. */
const CALM_MS = 30_000;
/** As much longer do real VMs take. */
const VM_FACTOR = 4;

/** Runs one case in a world without pods. @returns what is wrong; nothing when all is as it should be */
export async function runCase(world: World, chaos: ChaosCase): Promise<readonly Problem[]> {
  const run = new CaseRun(world, chaos);
  try {
    await run.all();
  } catch (e) {
    run.problem("stuck", `the case could not be run to its end: ${messageOf(e)}`);
  } finally {
    run.disarm();
  }
  return run.problems;
}

let number = 0;

class CaseRun {
  readonly problems: Problem[] = [];
  readonly #world: World;
  readonly #case: ChaosCase;
  readonly #calmMs: number;
  readonly #callMs: number;
  readonly #done = new Set<Hit>();
  /** Pods whose creation had been answered when something struck that ends them. */
  readonly #doomed = new Set<Pod>();
  #pods: readonly Pod[] = [];
  readonly #repairs: Promise<void>[] = [];
  #disarm: (() => void) | undefined;

  constructor(world: World, chaos: ChaosCase) {
    this.#world = world;
    this.#case = chaos;
    const factor = hasRealVms(world.kind.cloud) ? VM_FACTOR : 1;
    this.#calmMs = CALM_MS * factor;
    this.#callMs = CALL_BOUND_MS * factor;
  }

  problem(kind: Problem["kind"], text: string): void {
    this.problems.push({ kind, text });
    this.#world.timeline.note(`PROBLEM ${kind}: ${text}`);
  }

  disarm(): void {
    this.#disarm?.();
  }

  async all(): Promise<void> {
    const { timeline, containerd, redis } = this.#world;
    const { snapshot } = this.#case;
    const id = ++number;
    timeline.note(`CASE ${this.#case.name}`);
    if (snapshot === "before-bystander") await redis?.takeSnapshot();
    const bystander = await this.#newPod(`bystander-${id}`);
    if (snapshot === "after-bystander") await redis?.takeSnapshot();
    this.#disarm = timeline.onStep((step) => this.#onStep(step));
    this.#trouble("create");
    const names = Array.from({ length: this.#case.pods ?? 1 }, (_, n) => (n === 0 ? `pod-${id}` : `pod-${id}-${n}`));
    const pods = await Promise.all(names.map((name) => containerd.open(name)));
    this.#pods = pods;
    await Promise.all(pods.map((pod) => this.#make(pod)));
    this.#trouble("delete");
    await Promise.all(pods.map((pod) => this.#unmake(pod)));
    await this.#settleFaults();
    this.disarm();
    await this.#calm();
    await this.#lookAtBystander(bystander);
    if (this.#case.operator === true) await this.#world.confirmRecovery();
    await this.#untilNothingIsLeft();
  }

  /** One that nothing happens to yet. */
  async #newPod(name: string): Promise<Pod> {
    const { containerd } = this.#world;
    const pod = await containerd.open(name);
    await inTime(containerd.create(pod), this.#calmMs, `the creation of ${name}`);
    await inTime(containerd.start(pod), this.#calmMs, `the start of ${name}`);
    return pod;
  }

  #onStep(step: string): void {
    for (const hit of this.#case.hits) {
      if (hit.at !== step || this.#done.has(hit)) continue;
      this.#done.add(hit);
      if (endsPod(hit.fault)) for (const pod of this.#pods) if (pod.acknowledged) this.#doomed.add(pod);
      const repair = strike(this.#world, hit.fault).catch((e: unknown) => {
        this.problem("stuck", `after the fault it does not work again: ${messageOf(e)}`);
      });
      this.#repairs.push(repair);
    }
  }

  #trouble(during: Trouble["during"]): void {
    const { cloud, timeline } = this.#world;
    for (const trouble of this.#case.troubles ?? []) {
      if (trouble.during !== during) continue;
      timeline.note(`TROUBLE in the cloud begins: ${JSON.stringify(trouble)}`);
      cloud.disturb(trouble);
    }
  }

  async #make(pod: Pod): Promise<void> {
    const { containerd, timeline } = this.#world;
    const { create, reason } = this.#case;
    try {
      await inTime(containerd.create(pod), this.#callMs, "the pod's creation");
      await inTime(containerd.start(pod), this.#callMs, "the pod's start");
      timeline.note("the pod runs");
      if (create === "fails")
        this.problem("lost", "the pod's creation was answered with success, and should have failed");
    } catch (e) {
      timeline.note(`containerd is told: ${messageOf(e)}`);
      if (e instanceof Late) this.problem("stuck", e.message);
      else if (create === "succeeds") this.problem("lost", `the pod was not made: ${messageOf(e)}`);
      else if (reason !== undefined && !reason.test(messageOf(e)))
        this.problem("lost", `the reason of the pod's end is not in what containerd is told: ${messageOf(e)}`);
    }
  }

  async #unmake(pod: Pod): Promise<void> {
    const { containerd } = this.#world;
    const doomed = (): boolean => this.#doomed.has(pod) || pod.shimDied;
    if (pod.started && !doomed()) {
      const wrong = await containerd.problemWith(pod);
      // Something may have struck while it was looked at.
      if (wrong !== undefined && !doomed()) this.problem("lost", `a pod that was started does not run: ${wrong}`);
    }
    if (pod.started && doomed()) await this.#untilTold(pod);
    if (this.#nodeIsForgotten()) return; // containerd has forgotten it as well
    if (pod.started && !pod.shimDied) {
      try {
        await inTime(containerd.end(pod), this.#callMs, "the pod's deletion");
        return;
      } catch (e) {
        if (this.#nodeIsForgotten()) return; // with its containerd, which waits for a node that never comes back
        if (e instanceof Late) this.problem("stuck", e.message);
        else if (!doomed()) this.problem("stuck", `the pod cannot be deleted: ${messageOf(e)}`);
      }
    }
    if (!this.#nodeIsForgotten() && !pod.deleted) await containerd.cleanUp(pod);
  }

  /** A pod whose VM or node has died: containerd must learn it, from an exit or from its closed connection. */
  async #untilTold(pod: Pod): Promise<void> {
    const end = Date.now() + (this.#case.boundMs ?? BOUND_MS);
    while (pod.exits.length === 0 && !pod.shimDied && !pod.deleted) {
      if (Date.now() > end) return this.problem("lost", "the pod has ended, and containerd was not told");
      await delay(30);
    }
  }

  async #settleFaults(): Promise<void> {
    const missed = this.#case.hits.filter((hit) => !this.#done.has(hit));
    // Of several faults one may keep the others' steps from being reached. The last step may follow at once.
    if (missed.length > 0 && this.#case.hits.length === 1) {
      const end = Date.now() + BOUND_MS;
      while (this.#done.size === 0 && Date.now() < end) await delay(30);
      if (this.#done.size === 0) this.problem("stuck", `step ${missed[0]?.at} was never reached`);
    }
    await Promise.all(this.#repairs);
  }

  /** From here on nothing breaks any more. */
  async #calm(): Promise<void> {
    const { cloud, node, timeline } = this.#world;
    timeline.note("from here on nothing breaks");
    cloud.calm();
    if (!this.#case.hits.some(({ fault }) => fault.kind === "lose-node")) await node.start();
  }

  async #lookAtBystander(pod: Pod): Promise<void> {
    const { containerd } = this.#world;
    const ended = this.#struck(endsNode);
    if (!ended) {
      const wrong = await containerd.problemWith(pod);
      if (wrong !== undefined) return this.problem("lost", `the bystander does not run: ${wrong}`);
      return inTime(containerd.end(pod), this.#calmMs, "the bystander's deletion").catch((e: unknown) =>
        this.problem("stuck", `the bystander cannot be deleted: ${messageOf(e)}`),
      );
    }
    if (this.#nodeIsForgotten()) return;
    if (pod.exits.length === 0 && !pod.shimDied)
      this.problem("lost", "the bystander has ended, and containerd was not told");
    await containerd.cleanUp(pod);
  }

  async #untilNothingIsLeft(): Promise<void> {
    const { cloud } = this.#world;
    const end = Date.now() + (this.#case.boundMs ?? BOUND_MS);
    for (;;) {
      const left = await this.#left();
      if (left.length === 0) break;
      if (Date.now() > end) {
        for (const problem of left) this.problem(problem.kind, problem.text);
        break;
      }
      await delay(50);
    }
    for (const text of doubles(cloud.history())) this.problem("leaked", text);
  }

  async #left(): Promise<readonly Problem[]> {
    const { cloud } = this.#world;
    const leaked = (text: string): Problem => ({ kind: "leaked", text });
    const left = cloud.leftovers().map(leaked);
    if (left.length > 0) return left;
    if (!this.#case.hits.some(({ fault }) => fault.kind === "lose-node")) {
      left.push(...this.#world.nodeLeftovers().map(leaked), ...this.#world.strayProcesses().map(leaked));
    }
    try {
      const { sandboxes, operations } = await this.#world.view();
      const active = operations.filter((o) => o.state === "queued" || o.state === "running");
      left.push(
        ...active.map((o): Problem => ({ kind: "stuck", text: `operation ${o.id} (${o.kind}) is ${o.state}` })),
      );
      const open = sandboxes.filter((s) => s.phase !== "gone");
      left.push(
        ...open.map((s): Problem => ({ kind: "stuck", text: `sandbox ${s.id} (${s.pod.name}) is ${s.phase}` })),
      );
    } catch (e) {
      left.push({ kind: "stuck", text: `the adaptor does not say what it knows: ${messageOf(e)}` });
    }
    return left;
  }

  #struck(what: (fault: Hit["fault"]) => boolean): boolean {
    return [...this.#done].some(({ fault }) => what(fault));
  }

  /** After a reboot and after a loss nobody asks for the pods of before. */
  #nodeIsForgotten(): boolean {
    return this.#struck(({ kind }) => kind === "reboot-node" || kind === "lose-node");
  }
}

class Late extends Error {}

async function inTime<T>(work: Promise<T>, ms: number, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Late(`${what} has neither succeeded nor failed after ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
