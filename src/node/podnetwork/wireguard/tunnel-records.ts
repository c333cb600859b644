import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { type Static, Type } from "typebox";
import { parseConfig } from "../../../base/config.ts";
import { readIfThere, replaceFile } from "../../../base/files.ts";
import { UdpPort, WireguardKey } from "../../../podnetwork/index.ts";

/** What a pod's link is made from, so that it can be made again, or taken down, by whichever process comes next. */
export const TunnelRecord = Type.Object(
  {
    version: Type.Literal(1),
    kind: Type.Union([Type.Literal("kernel"), Type.Literal("wireguard-go")]),
    netnsPath: Type.String({ minLength: 1 }),
    /** Of this node's end of this one tunnel. */
    privateKey: WireguardKey,
    remote: Type.String({ minLength: 2 }),
    port: UdpPort,
    linkMtu: Type.Integer({ minimum: 68 }),
    /** Present: the guest has answered. */
    guestKey: Type.Optional(WireguardKey),
  },
  { additionalProperties: false },
);
export type TunnelRecord = Static<typeof TunnelRecord>;

/** One file for each pod, 0600 in a directory that only root enters. A reboot ends what they are about. */
export class TunnelRecords {
  readonly #dir: string;

  constructor(dir: string) {
    this.#dir = dir;
  }

  async read(sandboxId: string): Promise<TunnelRecord | undefined> {
    const path = this.#path(sandboxId);
    const text = await readIfThere(path);
    return text === undefined ? undefined : parseConfig(TunnelRecord, JSON.parse(text), path);
  }

  async write(sandboxId: string, record: TunnelRecord): Promise<void> {
    await mkdir(this.#dir, { recursive: true, mode: 0o700 });
    await replaceFile(this.#path(sandboxId), JSON.stringify(record));
  }

  async remove(sandboxId: string): Promise<void> {
    await rm(this.#path(sandboxId), { force: true });
  }

  /** Ids of the sandboxes that have one. */
  async list(): Promise<readonly string[]> {
    const names = await readdir(this.#dir).catch((e: NodeJS.ErrnoException) => {
      if (e.code === "ENOENT") return [];
      throw e;
    });
    return names.filter((name) => name.endsWith(".json")).map((name) => name.slice(0, -".json".length));
  }

  #path(sandboxId: string): string {
    return join(this.#dir, `${sandboxId}.json`);
  }
}
