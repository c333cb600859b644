import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { background } from "../../base/call.ts";
import { Storage } from "../../gen/agent/agent.ts";
import type { BlockDisk } from "../system/block-disks.ts";
import { CloudVolumes } from "./cloud-volumes.ts";

const storage = (source: string, change: Partial<Storage> = {}): Storage =>
  Storage.fromPartial({ driver: "kata-remote-volume", source, fstype: "ext4", ...change });
const disk = (name: string, serial: string): BlockDisk => ({
  ...{ name, serial, bytes: 1 << 30, lun: undefined },
  taken: true, // so that nothing is read of a device that is not there
});

describe("volumes of the cloud", () => {
  const ran: string[] = [];
  function volumesOf(disks: () => readonly BlockDisk[]): CloudVolumes {
    const run = async (command: string) => {
      ran.push(command);
      return { exitCode: 0, stdout: "", stderr: "" };
    };
    return new CloudVolumes({ volumes: () => ["vol-1", "vol-2"], children: { run }, disks });
  }

  it("are found by their ids, when they come, once for all who ask; one that is in use is not formatted", async () => {
    let looks = 0;
    const volumes = volumesOf(() =>
      ++looks < 3 ? [disk("nvme1n1", "vol1")] : [disk("nvme1n1", "vol1"), disk("x", "vol2")],
    );
    const wanted = storage("vol-2");
    await Promise.all([volumes.prepare(wanted, background()), volumes.prepare(wanted, background())]);
    assert.deepEqual([volumes.deviceOf(wanted), looks, ran], ["/dev/x", 3, []]);
  });

  it("are refused by name: of another pod, with a file system that is not known here, when nobody waits any more", async () => {
    const volumes = volumesOf(() => []);
    await assert.rejects(volumes.prepare(storage("vol-3"), background()), {
      ...{ code: "not_found", message: /vol-3 was not attached to this pod's VM when it was made: vol-1, vol-2/ },
    });
    await assert.rejects(volumes.prepare(storage("vol-1", { fstype: "ntfs" }), background()), {
      ...{ code: "invalid_argument", message: /"ntfs": ext4, ext3, xfs are known/ },
    });
    const end = new AbortController();
    const waiting = volumes.prepare(storage("vol-1"), { signal: end.signal });
    end.abort();
    await assert.rejects(waiting);
    assert.throws(() => volumes.deviceOf(storage("vol-1")), { code: "internal" });
  });
});
