/** What a guest process is told. */
export type ToGuest =
  | { readonly kind: "boot"; readonly userData: string; readonly address: string }
  | { readonly kind: "go"; readonly id: number };

/** What a guest process says. */
export type FromGuest =
  | { readonly kind: "spare" | "listening" }
  | { readonly kind: "console"; readonly text: string }
  | { readonly kind: "configured"; readonly certificatePem: string }
  /** The agent is about to do something, and waits for `go` with this id. */
  | { readonly kind: "step"; readonly step: string; readonly id: number };
