import { mkdirSync } from "node:fs";
import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { race } from "../../base/retry.ts";
import type { Storage } from "../../gen/agent/agent.ts";
import type { Process } from "../../gen/agent/oci.ts";
import { GUEST_PULL_DRIVER, type ImageSettings, PULL_DIGEST_OPTION } from "../../guestwire/index.ts";
import { tidyWhenQuiet } from "../system/garbage.ts";
import type { GuestLog } from "../system/guest-log.ts";
import { readAuthFile, readSettingsFile } from "./credentials.ts";
import { type PulledImage, pullImage } from "./image-puller.ts";
import { LayerStore, type StoredLayer } from "./layer-store.ts";
import { isPause, makePauseTree, pauseProcess } from "./pause.ts";
import { PullProgress } from "./pull-progress.ts";
import { type ImageReference, parseReference } from "./reference.ts";

export interface GuestImagesOptions {
  /** Directory on the guest's disk. */
  readonly disk: string;
  readonly log: GuestLog;
  /** Where the stock adaptor's user-data puts pull secrets; it need not exist. */
  readonly authFile?: string;
  /** ImageSettings as JSON that are part of the guest's image; the file need not exist. */
  readonly settingsFile?: string;
  /** How long a pull goes on that nobody waits for any more, ms. */
  readonly lingerMs?: number;
}

/** A pull that runs. */
export interface PullStatus {
  readonly image: string;
  readonly bytes: number;
  /** 0 as long as it is not known. */
  readonly totalBytes: number;
  readonly layers: number;
}

interface Job {
  readonly done: Promise<PulledImage>;
  readonly stop: AbortController;
  readonly progress: PullProgress;
  waiting: number;
  lingering: NodeJS.Timeout | undefined;
}

/** kubelet tries a container again after at most five minutes; its pull should not begin anew then. */
const LINGER_MS = 6 * 60_000;
const REPORT_MS = 10_000;

/**
 * Images that the guest pulls itself. Containers of one image share its pull and its layers; a container that is given
 * up leaves the pull to the next one that asks for it.
 */
export class GuestImages {
  readonly #options: GuestImagesOptions;
  readonly #store: LayerStore;
  readonly #jobs = new Map<string, Job>();
  /** Layers that containers hold, lowest first. */
  readonly #held = new Map<string, readonly StoredLayer[]>();
  #settings: ImageSettings = {};
  #pause: string | undefined;

  constructor(options: GuestImagesOptions) {
    this.#options = options;
    this.#store = new LayerStore(`${options.disk}/l`);
  }

  /** From now on; pulls that run keep theirs. Without `auths` the logins stay. @throws Fault invalid_argument */
  setSettings(json: string): void {
    try {
      const { auths = this.#settings.auths ?? {}, ...rest } = JSON.parse(json) as ImageSettings;
      this.#settings = { ...rest, auths };
    } catch (cause) {
      throw new Fault("invalid_argument", "the images' settings are not JSON", {}, { cause });
    }
  }

  get pulls(): readonly PullStatus[] {
    return [...this.#jobs].map(([image, { progress }]) => ({
      ...{ image, bytes: progress.bytes, totalBytes: progress.totalBytes, layers: progress.layers },
    }));
  }

  /**
   * Has the image of a storage ready for `owner`, until `release`.
   * @throws Fault naming image, registry and reason; cancelled when the call ends first
   */
  async prepare(storage: Storage, owner: string, call: Call): Promise<void> {
    if (this.#held.has(owner))
      throw new Fault("invalid_argument", `container ${owner} has two root file systems to pull`);
    if (isPause(storage)) {
      this.#held.set(owner, []);
      return;
    }
    const image = await this.#pull(wanted(storage), call);
    for (const layer of image.layers) layer.users += 1;
    this.#held.set(owner, image.layers);
  }

  /** Directories for overlay's lowerdir, uppermost first. @throws Fault failed_precondition before `prepare` */
  lowerDirectories(owner: string): readonly string[] {
    const layers = this.#held.get(owner);
    if (layers === undefined)
      throw new Fault("failed_precondition", `the image of container ${owner} has not been pulled`);
    return layers.length > 0 ? layers.map((l) => l.directory).reverse() : [this.#pauseTree()];
  }

  /** Its layers may go when space is needed. Repeatable. */
  release(owner: string): void {
    for (const layer of this.#held.get(owner) ?? []) this.#store.release(layer);
    this.#held.delete(owner);
  }

  /** What a container runs: the pod's own does not run the node's image. */
  processOf(storages: readonly Storage[], process: Process): Process {
    return storages.some((s) => s.driver === GUEST_PULL_DRIVER && isPause(s)) ? pauseProcess(process) : process;
  }

  async #pull(reference: ImageReference, call: Call): Promise<PulledImage> {
    call.signal.throwIfAborted();
    const job = this.#jobs.get(reference.text) ?? this.#begin(reference);
    clearTimeout(job.lingering);
    job.waiting += 1;
    try {
      return await race(job.done, call);
    } finally {
      job.waiting -= 1;
      if (job.waiting === 0 && this.#jobs.get(reference.text) === job) {
        const giveUp = (): void => job.stop.abort(new Fault("cancelled", "no container waits for it any more"));
        job.lingering = setTimeout(giveUp, this.#options.lingerMs ?? LINGER_MS).unref();
      }
    }
  }

  #begin(reference: ImageReference): Job {
    mkdirSync(this.#options.disk, { recursive: true });
    const settings = this.#allSettings();
    const stop = new AbortController();
    const progress = new PullProgress();
    const job: Job = {
      done: this.#run(reference, settings, progress, stop.signal),
      ...{ stop, progress, waiting: 0, lingering: undefined },
    };
    job.done.catch(() => undefined); // whoever waits is told; nobody may be waiting
    this.#jobs.set(reference.text, job);
    return job;
  }

  /** What the image says, then the stock adaptor's pull secrets, then what the node said. */
  #allSettings(): ImageSettings {
    const { authFile, settingsFile } = this.#options;
    const fixed = settingsFile === undefined ? {} : readSettingsFile(settingsFile);
    const told = this.#settings;
    return {
      ...fixed,
      ...told,
      auths: { ...fixed.auths, ...(authFile === undefined ? {} : readAuthFile(authFile)), ...told.auths },
      registries: { ...fixed.registries, ...told.registries },
    };
  }

  async #run(
    reference: ImageReference,
    settings: ImageSettings,
    progress: PullProgress,
    signal: AbortSignal,
  ): Promise<PulledImage> {
    const { disk, log } = this.#options;
    const image = reference.text;
    const began = performance.now();
    const report = setInterval(() => log.info("image comes", { image, progress: progress.text }), REPORT_MS).unref();
    log.info("image pull begins", { image });
    try {
      const pulled = await pullImage({ store: this.#store, disk, log }, reference, settings, progress, { signal });
      const ms = Math.round(performance.now() - began);
      log.info("image is here", { image, digest: pulled.digest, bytes: progress.bytes, ms });
      // Those who waited take theirs in this turn of the loop; then the pull itself needs them no more.
      setImmediate(() => {
        for (const layer of pulled.layers) this.#store.release(layer);
      });
      return pulled;
    } catch (e) {
      log.warn("image was not pulled", { image, err: Fault.from(e).fullMessage });
      throw e;
    } finally {
      clearInterval(report);
      clearTimeout(this.#jobs.get(image)?.lingering);
      this.#jobs.delete(image);
      tidyWhenQuiet();
    }
  }

  #pauseTree(): string {
    if (this.#pause === undefined) {
      const directory = this.#store.makeDirectory();
      makePauseTree(directory);
      this.#pause = directory;
    }
    return this.#pause;
  }
}

/** With the digest that the node found for it, when it says so. @throws Fault invalid_argument */
function wanted(storage: Storage): ImageReference {
  const reference = parseReference(storage.source);
  const digest = storage.driverOptions.find((o) => o.startsWith(PULL_DIGEST_OPTION))?.slice(PULL_DIGEST_OPTION.length);
  if (digest === undefined || digest === reference.digest) return reference;
  if (reference.digest !== undefined)
    throw new Fault(
      "failed_precondition",
      `image ${reference.text} is ${digest} on the node: the names do not mean the same image`,
    );
  return parseReference(`${storage.source}@${digest}`);
}
