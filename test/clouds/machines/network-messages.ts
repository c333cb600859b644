import type { MetadataRequest } from "./types.ts";

/** What DHCP tells the card with a hardware address. */
export interface Lease {
  readonly mac: string;
  readonly address: string;
  readonly prefixLength: number;
  readonly router: string;
  readonly mtu: number;
}

export type ToNetwork =
  | { readonly kind: "serve"; readonly addresses: readonly string[] }
  | { readonly kind: "leases"; readonly leases: readonly Lease[] }
  | {
      readonly kind: "reply";
      readonly id: number;
      /** Body in base64. */
      readonly reply:
        | { readonly status: number; readonly headers: Readonly<Record<string, string>>; readonly body: string }
        | undefined;
    };

export type FromNetwork =
  | { readonly kind: "ready" }
  | ({ readonly kind: "request"; readonly id: number; readonly body: string } & Omit<
      MetadataRequest,
      "body" | "machineId"
    >);
