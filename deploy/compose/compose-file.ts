import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parse } from "yaml";

/** The parts of a service of docker-compose.yml that matter where there is no Docker. */
export interface ComposeService {
  readonly command: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  readonly healthcheck?: { readonly test: readonly string[] };
  readonly depends_on?: Readonly<Record<string, { readonly condition: string }>>;
  readonly networks?: { readonly default?: { readonly aliases?: readonly string[] } };
  readonly network_mode?: string;
}

/** docker-compose.yml of this repository, merge keys resolved. */
export async function readComposeFile(): Promise<{ readonly services: Readonly<Record<string, ComposeService>> }> {
  const path = join(import.meta.dirname, "..", "..", "docker-compose.yml");
  return parse(await readFile(path, "utf8"), { merge: true }) as {
    readonly services: Readonly<Record<string, ComposeService>>;
  };
}

/** Names in an order in which each comes after what it depends on. @throws Error for a circle or an unknown name */
export function startOrder(services: Readonly<Record<string, ComposeService>>): readonly string[] {
  const order: string[] = [];
  const visit = (name: string, path: readonly string[]): void => {
    if (order.includes(name)) return;
    const service = services[name];
    if (service === undefined || path.includes(name))
      throw new Error(`docker-compose.yml: ${[...path, name].join(" needs ")}, which cannot be`);
    for (const needed of Object.keys(service.depends_on ?? {})) visit(needed, [...path, name]);
    order.push(name);
  };
  for (const name of Object.keys(services)) visit(name, []);
  return order;
}
