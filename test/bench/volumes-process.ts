import { join } from "node:path";
import { ShimFixture } from "../fakes/shim.ts";
import { writeVolume } from "../support/kubelet-volume.ts";
import { serveMeasuringProcess } from "./peer-process.ts";

/** What pods of a cluster have at least: a token, and usually settings and a password. */
const VOLUMES = ["kubernetes.io~projected/token", "kubernetes.io~configmap/settings", "kubernetes.io~secret/password"];
const FILES = { one: "1", two: "2", three: "3" };

/**
 * The shim of a node daemon with pods that have followed volumes, in a process of its own; VMs and agents are stand-ins
 * that only count. On SIGUSR2 every pod's first volume changes.
 * @param pods how many
 * @param folder where kubelet's directories are made
 */
async function serve(pods: number, folder: string): Promise<void> {
  const fixture = await ShimFixture.create();
  const calls = (): number => [...fixture.relay.agents.values()].reduce((sum, agent) => sum + agent.calls.length, 0);
  const dirOf = (pod: number, volume: string): string => join(folder, "pods", `u${pod}`, "volumes", volume);
  for (let pod = 0; pod < pods; pod += 1) {
    for (const volume of VOLUMES) writeVolume(dirOf(pod, volume), FILES);
    const annotations = {
      "io.kubernetes.cri.container-type": "sandbox",
      "io.kubernetes.cri.sandbox-name": `p${pod}`,
      "io.kubernetes.cri.sandbox-namespace": "bench",
      "io.kubernetes.cri.sandbox-uid": `u${pod}`,
    };
    const mounts = VOLUMES.map((volume, i) => ({
      ...{ destination: `/volume-${i}`, type: "bind", source: dirOf(pod, volume), options: ["rbind", "ro"] },
    }));
    const id = `p${pod}`;
    await fixture.task().create(await fixture.createRequest(id, (spec) => ({ ...spec, annotations, mounts })));
    await fixture.task().start({ id, execId: "" });
  }
  process.on("SIGUSR2", () => {
    const before = calls();
    const began = performance.now();
    for (let pod = 0; pod < pods; pod += 1) writeVolume(dirOf(pod, VOLUMES[0] as string), { ...FILES, one: "new" });
    // The directory, its files, `..data`.
    const expected = pods * (1 + Object.keys(FILES).length + 1);
    const look = setInterval(() => {
      if (calls() - before < expected) return;
      clearInterval(look);
      process.send?.(performance.now() - began);
    }, 5);
  });
  process.on("SIGTERM", () => void fixture.close().finally(() => process.exit(0)));
  serveMeasuringProcess(process.pid);
}

const [pods, folder] = process.argv.slice(2);
if (pods === undefined || folder === undefined) throw new Error("a number of pods and a directory are needed");
await serve(Number(pods), folder);
