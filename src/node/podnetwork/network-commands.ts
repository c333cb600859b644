import { statfs } from "node:fs/promises";
import type { Call } from "../../base/call.ts";
import { exec } from "../../base/exec.ts";
import { Fault } from "../../base/fault.ts";

/** Source: include/uapi/linux/magic.h */
const NSFS_MAGIC = 0x6e736673;

export interface NetworkCommandsOptions {
  /** Namespace that counts as the host's; this process's own unless tests say otherwise. */
  readonly hostNetns?: string | undefined;
  /**
   * containerd's root directory, seen from here. This process may have a mount namespace of its own, into which mounts
   * that come later do not spread where the host's root is not a shared mount (no systemd).
   */
  readonly hostRoot?: string | undefined;
}

/** Runs `ip`, `tc` and `iptables` in network namespaces. */
export class NetworkCommands {
  readonly #options: NetworkCommandsOptions;

  constructor(options: NetworkCommandsOptions = {}) {
    this.#options = options;
  }

  /** A program in the host's namespace. @throws Fault as exec does */
  host(command: string, args: readonly string[], call: Call, input?: string): Promise<string> {
    return run(this.#options.hostNetns, command, args, call, input);
  }

  /** A program in a pod's namespace. @throws Fault not_found when the namespace is gone */
  async pod(netnsPath: string, command: string, args: readonly string[], call: Call, input?: string): Promise<string> {
    return await run(await this.reachable(netnsPath), command, args, call, input);
  }

  /** Where a namespace's mount is seen from this process. @throws Fault not_found */
  async reachable(netnsPath: string): Promise<string> {
    const { hostRoot } = this.#options;
    for (const path of [netnsPath, ...(hostRoot === undefined ? [] : [hostRoot + netnsPath])]) {
      const type = await statfs(path).then(
        (stat) => stat.type,
        () => undefined, // not there, or not for us to see
      );
      if (type === NSFS_MAGIC) return path;
    }
    // A path whose mount is gone, but which was not removed yet, is an ordinary file.
    throw new Fault("not_found", `network namespace ${netnsPath} is gone`);
  }

  /** JSON that `ip` prints; one value, also when it prints nothing. @throws as pod and host do */
  async podJson<T>(netnsPath: string, command: string, args: readonly string[], call: Call): Promise<readonly T[]> {
    return parse<T>(await this.pod(netnsPath, command, args, call), command, args);
  }

  async hostJson<T>(command: string, args: readonly string[], call: Call): Promise<readonly T[]> {
    return parse<T>(await this.host(command, args, call), command, args);
  }
}

async function run(
  netns: string | undefined,
  command: string,
  args: readonly string[],
  call: Call,
  input?: string,
): Promise<string> {
  const options = { env: { ...process.env, LC_ALL: "C" }, ...(input === undefined ? {} : { input }) };
  const result =
    netns === undefined
      ? await exec(command, args, call, options)
      : await exec("nsenter", [`--net=${netns}`, "--", command, ...args], call, options);
  return result.stdout;
}

function parse<T>(text: string, command: string, args: readonly string[]): readonly T[] {
  if (text.trim() === "") return [];
  try {
    return JSON.parse(text) as T[];
  } catch (cause) {
    throw new Fault("internal", `${command} ${args.join(" ")} did not print JSON`, {}, { cause });
  }
}
