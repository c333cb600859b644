import { type Static, Type } from "typebox";
import type { Logger } from "../../base/log.ts";
import type { Agent } from "../agent/index.ts";
import type { CopyLimits, TreeCopy } from "./copy-tree.ts";
import type { NodeFiles } from "./node-files.ts";
import { syncVolume, type VolumeVersion } from "./sync-volume.ts";
import type { VolumeWatch } from "./volume-watch.ts";

/** A followed volume of a container, as the next daemon needs it. */
export const VolumeRecord = Type.Object(
  {
    /** For messages: `mounts[3]`. */
    field: Type.String(),
    source: Type.String(),
    destination: Type.String(),
    guestPath: Type.String(),
    /** What the guest has: where `..data` leads. */
    version: Type.String(),
  },
  { additionalProperties: false },
);
export type VolumeRecord = Static<typeof VolumeRecord>;

/** As this daemon knows it. */
export interface FollowedVolume extends VolumeRecord {
  /** Names that the volume shows in the guest; absent: not known, an earlier daemon copied it. */
  readonly names?: ReadonlySet<string> | undefined;
}

export interface ContainerVolumesDeps {
  readonly watch: VolumeWatch;
  readonly files: Pick<NodeFiles, "reach">;
  readonly agent: Pick<Agent, "copyFile">;
  readonly limits: CopyLimits;
  /** Aborted when the guest is lost or taken down. */
  readonly life: AbortSignal;
  /** Writes down what `records` says. */
  readonly save: () => Promise<void>;
  readonly log: Logger;
}

/** Keeps the copies that one container has of kubelet's volumes as these are on the node. */
export class ContainerVolumes {
  readonly #deps: ContainerVolumesDeps;
  readonly #end = new AbortController();
  readonly #copies: { readonly copy: TreeCopy; known: VolumeVersion }[];
  readonly #unfollow: (() => Promise<void>)[];

  constructor(volumes: readonly FollowedVolume[], deps: ContainerVolumesDeps) {
    this.#deps = deps;
    this.#copies = volumes.map(({ version, names, ...copy }) => ({ copy, known: { version, names } }));
    this.#unfollow = this.#copies.map((followed) =>
      deps.watch.follow(deps.files.reach(followed.copy.source), () => this.#update(followed)),
    );
    deps.life.addEventListener("abort", () => void this.stop(), {
      ...{ once: true, signal: this.#end.signal },
    });
  }

  get records(): VolumeRecord[] {
    return this.#copies.map(({ copy, known }) => ({ ...copy, version: known.version }));
  }

  /** Follows no longer; resolves when nothing is on its way to the guest any more. Repeatable. */
  async stop(): Promise<void> {
    this.#end.abort();
    await Promise.all(this.#unfollow.map((end) => end()));
  }

  async #update(followed: { readonly copy: TreeCopy; known: VolumeVersion }): Promise<boolean> {
    const { agent, files, limits, life, log, save } = this.#deps;
    const { copy } = followed;
    const signal = AbortSignal.any([life, this.#end.signal]);
    const began = performance.now();
    try {
      const now = await syncVolume(agent, { ...copy, at: files.reach(copy.source) }, limits, followed.known, {
        signal,
      });
      if (now === undefined || now === followed.known) return true;
      followed.known = now;
      const ms = Math.round(performance.now() - began);
      log.info(
        { volume: copy.source, version: now.version, files: now.names?.size, ms },
        "changed volume is in the guest",
      );
      await save();
      return true;
    } catch (err) {
      if (signal.aborted) return true;
      log.warn({ err, volume: copy.source, destination: copy.destination }, "changed volume not in the guest yet");
      return false;
    }
  }
}
