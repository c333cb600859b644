import type { Call } from "../../src/base/call.ts";
import type { Clock } from "../../src/base/clock.ts";
import { Fault } from "../../src/base/fault.ts";
import { Cached } from "../../src/provider/index.ts";
import type { ArmApi } from "./arm-api.ts";
import type { AzureConfig } from "./config.ts";
import { findImage } from "./find-image.ts";
import { parseImageName } from "./image-name.ts";
import { type PodVmImage, unusable, usableImage } from "./pod-vm-image.ts";

const KEEP_MS = 300_000;

/** The default image and those that pods may choose, looked up once in a while. */
export class Images {
  readonly #config: AzureConfig;
  readonly #cached: Cached<string, PodVmImage>;

  constructor(deps: { readonly api: ArmApi; readonly config: AzureConfig; readonly clock: Clock }) {
    const { api, config, clock } = deps;
    this.#config = config;
    const load = async (name: string, call: Call): Promise<PodVmImage> => {
      const parsed = parseImageName(name);
      if (parsed === undefined) throw unusable(`"${name}" is no image's name: see providers/azure/README.md`);
      return usableImage(await findImage(parsed, name, { api, config }, call), config);
    };
    this.#cached = new Cached({ load, keepMs: KEEP_MS, clock });
  }

  /**
   * @param asked the pod's own choice; undefined = the configured one
   * @throws Fault invalid_argument for an image that pods may not choose, failed_precondition for one that cannot be used
   */
  resolve(asked: string | undefined, call: Call): Promise<PodVmImage> {
    const { image, images } = this.#config;
    const same = (name: string): boolean => name.toLowerCase() === asked?.toLowerCase();
    if (asked !== undefined && ![image, ...images].some(same)) {
      const message = `image "${asked}" is not among those that providers.azure.images allows: ${[image, ...images].join(", ")}`;
      throw new Fault("invalid_argument", message, { provider: "azure", kind: "bad-request" });
    }
    return this.#cached.get(asked ?? image, call);
  }
}
