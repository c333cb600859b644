import { DISK_ROUTES } from "./compute/disks.ts";
import { GALLERY_ROUTES } from "./compute/galleries.ts";
import { IMAGE_ROUTES } from "./compute/images.ts";
import { SKU_ROUTES } from "./compute/skus.ts";
import { VM_ROUTES } from "./compute/virtual-machines.ts";
import { GROUP_ROUTES } from "./groups.ts";
import { NIC_ROUTES } from "./network/interfaces.ts";
import { NETWORK_ROUTES } from "./network/networks.ts";
import { PUBLIC_IP_ROUTES } from "./network/public-ips.ts";
import { OPERATION_ROUTES } from "./operation-routes.ts";
import type { Route } from "./route.ts";

const ROUTES: readonly Route[] = [
  ...GROUP_ROUTES,
  ...OPERATION_ROUTES,
  ...VM_ROUTES,
  ...DISK_ROUTES,
  ...IMAGE_ROUTES,
  ...GALLERY_ROUTES,
  ...SKU_ROUTES,
  ...NIC_ROUTES,
  ...NETWORK_ROUTES,
  ...PUBLIC_IP_ROUTES,
];

const COMPILED = ROUTES.map((route) => {
  const names: string[] = [];
  const source = route.path
    .split("/")
    .map((part) => {
      const name = /^\{(.+)\}$/.exec(part)?.[1];
      if (name === undefined) return part.replace(/[.*+?^$()|[\]\\]/g, "\\$&");
      names.push(name);
      return "([^/]+)";
    })
    .join("/");
  return { route, names, pattern: new RegExp(`^${source}$`, "i") };
});

export function findRoute(
  method: string,
  path: string,
): { readonly route: Route; readonly params: Readonly<Record<string, string>> } | undefined {
  for (const { route, names, pattern } of COMPILED) {
    const found = route.method === method ? pattern.exec(path) : null;
    if (found === null) continue;
    return { route, params: Object.fromEntries(names.map((name, i) => [name, found[i + 1] ?? ""])) };
  }
  return undefined;
}
