import type { Call } from "../../base/call.ts";
import { exec } from "../../base/exec.ts";
import { Fault } from "../../base/fault.ts";

/**
 * Lets every TCP connection that is made inside of a namespace to its 127.0.0.1 arrive at one port. The rule goes with
 * the namespace. Repeatable.
 * @throws Fault failed_precondition where neither iptables nor nft can do it, with what they said
 */
export async function redirectLocalhost(netns: string, port: number, call: Call): Promise<void> {
  const inNetns = (command: string, args: readonly string[], input?: string): Promise<unknown> =>
    exec("nsenter", [`--net=${netns}`, "--", command, ...args], call, input === undefined ? {} : { input });
  const rule = ["-d", "127.0.0.1/32", "-p", "tcp", "-j", "REDIRECT", "--to-ports", String(port)];
  const iptables = (action: string): Promise<unknown> =>
    inNetns("iptables", ["-w", "5", "-t", "nat", action, "OUTPUT", ...rule]);
  try {
    // Another daemon may have made it.
    await iptables("-C").catch(() => iptables("-A"));
  } catch (cause) {
    try {
      await inNetns("nft", ["-f", "-"], table(port));
    } catch (nft) {
      const said = [cause, nft].map((e) => Fault.from(e).message).join("; ");
      const message = `connections to the pod's localhost cannot be redirected, which port-forward needs: ${said}; install iptables`;
      throw new Fault("failed_precondition", message, {}, { cause });
    }
  }
}

/** Made anew each time: first declared, so that deleting it succeeds. */
function table(port: number): string {
  const name = "kata-remote-localhost";
  return [
    `table ip ${name}`,
    `delete table ip ${name}`,
    `table ip ${name} {`,
    "  chain output {",
    "    type nat hook output priority -100;",
    `    ip daddr 127.0.0.1 meta l4proto tcp redirect to :${port}`,
    "  }",
    "}",
    "",
  ].join("\n");
}
