import { Fault } from "../../base/fault.ts";
import type { Logger } from "../../base/log.ts";
import type { Any } from "../../gen/google/protobuf/any.ts";
import { Options } from "../../gen/runtimeoptions/v1/options.ts";
import type { PodOverrides } from "../sandbox/index.ts";
import { isKataFile, readKataFile } from "./kata-file.ts";
import { readRuntimeFile } from "./runtime-file.ts";
import { parseTable, readTomlFile, type TomlTable } from "./toml-file.ts";

/** Source: containerd pkg/cri (runtimeoptions), older spelling until 1.6; ctr and docker send runc's. */
const RUNTIME_OPTIONS = new Set(["runtimeoptions.v1.Options", "cri.runtimeoptions.v1.Options"]);
const RUNC_OPTIONS = "containerd.runc.v1.Options";

/** What runtimes' files say, with a warning for what in them means nothing here. One for each daemon. */
export class RuntimeOptions {
  readonly #log: Pick<Logger, "warn">;
  /** Files and what was said of them: once is enough. */
  readonly #said = new Map<string, string>();

  constructor(deps: { readonly log: Pick<Logger, "warn"> }) {
    this.#log = deps.log;
  }

  /**
   * Reads the options of a runtime. runc's are accepted and mean nothing here (README).
   * @throws Fault invalid_argument naming the type, or the file and the key in it
   */
  async read(options: Any | undefined): Promise<PodOverrides> {
    const type = (options?.typeUrl ?? "").replace(/^.*\//, "");
    if (options === undefined || type === "" || type === RUNC_OPTIONS) return {};
    if (!RUNTIME_OPTIONS.has(type)) {
      const known = [...RUNTIME_OPTIONS, RUNC_OPTIONS].join(", ");
      throw new Fault(
        "invalid_argument",
        `runtime options of type "${type}" are not known (${known} are); correct the options of this runtime in containerd's configuration`,
      );
    }
    let decoded: Options;
    try {
      decoded = Options.decode(options.value);
    } catch (cause) {
      throw new Fault("invalid_argument", `runtime options of type "${type}" cannot be decoded`, {}, { cause });
    }
    const { configPath, configBody } = decoded;
    if (configPath !== "") return this.#overrides(await readTomlFile(configPath), configPath);
    const origin = "runtime options (config_body)";
    return configBody.length === 0 ? {} : this.#overrides(parseTable(configBody.toString("utf8"), origin), origin);
  }

  #overrides(table: TomlTable, origin: string): PodOverrides {
    if (!isKataFile(table)) return readRuntimeFile(table, origin);
    const { own, others } = readKataFile(table, origin);
    const list = others.join(", ");
    if (list !== "" && this.#said.get(origin) !== list) {
      this.#said.set(origin, list);
      this.#log.warn({ file: origin, keys: others }, `keys in ${origin} that mean nothing to kata-remote: ${list}`);
    }
    return readRuntimeFile(own, origin);
  }
}
