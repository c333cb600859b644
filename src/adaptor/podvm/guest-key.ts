import { type Call, withDeadline } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { InstanceId } from "../../base/ids.ts";
import { sleep } from "../../base/retry.ts";
import { CONSOLE_KEY_PREFIX } from "../../guestwire/index.ts";
import type { Provider } from "../../provider/index.ts";

const CONSOLE_BYTES = 1024 * 1024;
const POLL_MS = 100;

/**
 * Compares a key with the fingerprint on the instance's console, which only the VM itself can write to. The first such
 * line counts: what runs in the VM later could print another one. Where there is no console to read, or it shows no
 * fingerprint in time, the address that the provider reported is all that vouches for the guest.
 * @throws Fault permission_denied when the console shows another key
 */
export async function verifyGuestKey(
  options: {
    readonly provider: Provider;
    readonly instanceId: InstanceId;
    readonly fingerprint: string;
    readonly waitMs: number;
  },
  call: Call,
): Promise<"console" | "address"> {
  const { provider, instanceId, fingerprint } = options;
  const deadline = withDeadline(options.waitMs, call);
  for (;;) {
    const text = await provider.consoleOutput(instanceId, CONSOLE_BYTES, call);
    if (text === undefined) return "address";
    const shown = shownKey(text);
    if (shown === fingerprint) return "console";
    if (shown !== undefined) {
      const message = `the console of ${instanceId} shows the guest key ${shown}, but ${fingerprint} asks to be signed`;
      throw new Fault("permission_denied", message, { instanceId });
    }
    try {
      await sleep(POLL_MS, deadline);
    } catch (e) {
      if (call.signal.aborted) throw e;
      return "address";
    }
  }
}

function shownKey(consoleText: string): string | undefined {
  const at = consoleText.indexOf(CONSOLE_KEY_PREFIX);
  return at < 0 ? undefined : /^[0-9a-f]{64}/.exec(consoleText.slice(at + CONSOLE_KEY_PREFIX.length))?.[0];
}
