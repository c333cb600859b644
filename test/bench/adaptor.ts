import { join } from "node:path";
import { withDeadline } from "../../src/base/call.ts";
import { newSandboxId } from "../../src/base/ids.ts";
import { PodVmDefinition, StartVmEvent_Stage } from "../../src/gen/kataremote/podvm/v1/podvm.ts";
import { createClient } from "../../src/grpc/index.ts";
import { makeCsr, newKeyPair } from "../../src/identity/index.ts";
import type { BenchScope } from "./bench-scope.ts";
import { type Figure, figure } from "./figure.ts";
import { oneByOne, quantile } from "./measure.ts";
import { PeerProcess } from "./peer-process.ts";

const WARM_UP = 50;
const PODS = 250;

/** What the adaptor adds to CreateVM + StartVM, and to signing the guest's key, with a provider that costs nothing. */
export async function adaptorFigures(scope: BenchScope): Promise<Figure[]> {
  scope.say(`adaptor: ${PODS} pods with a provider that costs nothing`);
  await using adaptor = await PeerProcess.start<string>({
    script: join(import.meta.dirname, "adaptor-process.ts"),
    args: [join(scope.folder, "a")],
  });
  const client = createClient(PodVmDefinition, { address: `unix://${adaptor.ready}` });
  try {
    const csrPem = makeCsr(newKeyPair().keyPem, "guest");
    const call = withDeadline(120_000, scope.call);
    const startPod = async () => {
      const sandboxId = newSandboxId();
      const pod = { namespace: "default", name: "bench", uid: "u" };
      const begun = performance.now();
      await client.createVm(
        { sandboxId, nodeId: "node-1", pod, containerdNamespace: "default", containerdId: "c" },
        call,
      );
      const created = performance.now();
      let addressed = Number.NaN;
      for await (const { stage, message } of client.startVm({ sandboxId }, call)) {
        if (stage === StartVmEvent_Stage.FAILED) throw new Error(`provider zero failed: ${message}`);
        if (stage === StartVmEvent_Stage.ADDRESS) addressed = performance.now();
      }
      const before = performance.now();
      await client.signGuest({ sandboxId, csrPem }, call);
      const signed = performance.now() - before;
      await client.reportReady({ sandboxId }, call);
      return { create: created - begun, start: addressed - created, both: addressed - begun, sign: signed };
    };
    for (let i = 0; i < WARM_UP; i++) await startPod();
    const bare = (await oneByOne(() => client.version({}, call), 2_000)).p50Us / 1000;
    const cpuBefore = await adaptor.cpuSeconds();
    const times: Awaited<ReturnType<typeof startPod>>[] = [];
    for (let i = 0; i < PODS; i++) times.push(await startPod());
    const cpuMs = ((await adaptor.cpuSeconds()) - cpuBefore) * 1000;

    const base = { value: bare, text: `a bare gRPC call (${bare.toFixed(2)} ms)` };
    const ms = (name: string, text: string, key: keyof (typeof times)[number], share: number): Figure =>
      figure(
        `adaptor.${name}`,
        text,
        quantile(
          times.map((t) => t[key]),
          share,
        ),
        "ms",
        { base },
      );
    return [
      ms("createAndStart.p50", "adaptor time in CreateVM + StartVM, p50", "both", 0.5),
      ms("createAndStart.p99", "adaptor time in CreateVM + StartVM, p99", "both", 0.99),
      ms("create.p50", "  of it CreateVM, p50", "create", 0.5),
      ms("start.p50", "  of it StartVM until the address, p50", "start", 0.5),
      ms("sign.p50", "signing the guest's key (while the VM boots), p50", "sign", 0.5),
      figure("adaptor.cpu", "adaptor CPU per pod, all of the above", cpuMs / PODS, "ms", { base }),
    ];
  } finally {
    client.close();
  }
}
