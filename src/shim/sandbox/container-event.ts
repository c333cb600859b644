import type { RootfsMount } from "./rootfs.ts";

/** Standard streams as containerd names them. */
export interface Stdio {
  readonly terminal: boolean;
  readonly stdin: string;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Exit {
  /** 128 + n after signal n; 255 when nothing can be known any more. */
  readonly status: number;
  readonly at: Date;
}

/** What happened to a container, for the containerd that owns it. `processId` "" is the container's first process. */
export type ContainerEvent =
  | { readonly kind: "create"; readonly bundle: string; readonly rootfs: readonly RootfsMount[]; readonly stdio: Stdio }
  | { readonly kind: "start" }
  | ({ readonly kind: "exit"; readonly processId: string } & Exit)
  | ({ readonly kind: "delete" } & Exit)
  | { readonly kind: "exec-added"; readonly execId: string }
  | { readonly kind: "exec-started"; readonly execId: string }
  | { readonly kind: "oom" }
  | { readonly kind: "paused" }
  | { readonly kind: "resumed" };

/** Takes an event for delivery, in order; resolves when it cannot be lost any more. Never rejects. */
export type Emit = (event: ContainerEvent) => Promise<void>;
