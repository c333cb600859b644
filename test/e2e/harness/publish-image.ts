import { writeFileSync } from "node:fs";
import { stringify } from "smol-toml";
import { KATA_REMOTE } from "./images.ts";
import { must } from "./run-command.ts";

/** Where the real command publishes to, and how it is told. */
export interface PublishPlace {
  readonly provider: string;
  /** `[providers.<name>]` of the adaptor's configuration. */
  readonly settings: Readonly<Record<string, unknown>>;
  /** The cloud's credentials. */
  readonly env: NodeJS.ProcessEnv;
  /** Is written. */
  readonly configPath: string;
}

/** `kata-remote image publish` of the disk in a directory. @returns the image's id */
export async function publishImage(place: PublishPlace, dir: string, more: readonly string[]): Promise<string> {
  const { provider, settings, env, configPath } = place;
  writeFileSync(configPath, stringify({ provider, providers: { [provider]: settings } }));
  const args = ["image", "publish", provider, "--dir", dir, "--config", configPath, ...more, "--json"];
  const printed = await must(KATA_REMOTE, args, { env: { ...process.env, ...env }, timeoutMs: 300_000 });
  return (JSON.parse(printed) as { imageId: string }).imageId;
}

/** `kata-remote image unpublish` */
export async function unpublishImage(place: PublishPlace, imageId: string): Promise<void> {
  const args = ["image", "unpublish", place.provider, imageId, "--config", place.configPath];
  await must(KATA_REMOTE, args, { env: { ...process.env, ...place.env } });
}
