import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ZeroProvider } from "../fakes/zero-provider.ts";
import { providerConformance } from "./provider.ts";

providerConformance("zero, in files", async () => {
  const dir = await mkdtemp(join(tmpdir(), "zero-"));
  return {
    provider: new ZeroProvider({ dir }),
    reopen: async () => new ZeroProvider({ dir }),
    close: () => rm(dir, { recursive: true }),
  };
});

providerConformance("zero, in batches", async () => {
  const dir = await mkdtemp(join(tmpdir(), "zero-"));
  const open = (): ZeroProvider => new ZeroProvider({ dir, places: ["a", "b"] });
  return { provider: open(), reopen: async () => open(), close: () => rm(dir, { recursive: true }) };
});

providerConformance("zero, slow to give addresses and to delete", async () => {
  const dir = await mkdtemp(join(tmpdir(), "zero-"));
  const open = (): ZeroProvider => {
    const provider = new ZeroProvider({ dir });
    Object.assign(provider.knobs, { pollsToAddress: 2, pollsToGone: 2, createLatencyMs: 1 });
    return provider;
  };
  return { provider: open(), reopen: async () => open(), close: () => rm(dir, { recursive: true }) };
});
