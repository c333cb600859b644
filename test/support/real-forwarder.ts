import { join } from "node:path";
import { Forwarder, type ForwarderDeps, TreeStore } from "../../src/guest/forwarder/index.ts";
import { Children } from "../../src/guest/system/children.ts";

/**
 * The guest's own forwarder outside of a VM: nothing of this machine is changed.
 * @param folder Root filesystem trees go there
 */
export function realForwarder(
  guest: Pick<ForwarderDeps, "identity" | "agent"> & { readonly folder: string },
): Forwarder {
  const { identity, agent, folder } = guest;
  // Ids of trees may be anything where mutated frames bring them.
  const treeDirectory = (treeId: string): string => join(folder, encodeURIComponent(treeId).slice(0, 100));
  return new Forwarder({
    ...{ identity, agent, treeDirectory, diskPath: folder },
    trees: new TreeStore({ children: new Children(), directory: treeDirectory, diskText: () => "" }),
    images: () => Promise.reject(new Error("no image is pulled here")),
    machine: {
      setClock: () => undefined,
      setHostname: () => undefined,
      listeningMs: () => 0,
      setPodNetwork: async () => "",
    },
    log: { info: () => undefined, warn: () => undefined, error: () => undefined },
  });
}
