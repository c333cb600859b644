import type { Call } from "../../base/call.ts";
import { exec } from "../../base/exec.ts";
import { Fault } from "../../base/fault.ts";

/** Runs `ip`, `tc` and `iptables` in network namespaces. */
export class NetworkCommands {
  readonly #home: string | undefined;

  /** @param home namespace that counts as the host's; this process's own unless tests say otherwise */
  constructor(home?: string) {
    this.#home = home;
  }

  /** A program in the host's namespace. @throws Fault as exec does */
  host(command: string, args: readonly string[], call: Call, input?: string): Promise<string> {
    return run(this.#home, command, args, call, input);
  }

  /** A program in a pod's namespace. @throws Fault not_found when the namespace is gone */
  async pod(netnsPath: string, command: string, args: readonly string[], call: Call, input?: string): Promise<string> {
    try {
      return await run(netnsPath, command, args, call, input);
    } catch (thrown) {
      const cause = Fault.from(thrown);
      // A path that was unmounted but not yet removed is an ordinary file.
      if (!/nsenter: (cannot open|reassociate to namespace)/.test(cause.message)) throw cause;
      throw new Fault("not_found", `network namespace ${netnsPath} is gone`, {}, { cause });
    }
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
