import { connect, createServer, type Server, type Socket } from "node:net";

/**
 * A socket in front of several adaptors, as a Service of Kubernetes is: each connection goes to the next one that takes
 * it. One that is frozen still takes connections, one that is dead does not.
 */
export class Balancer implements AsyncDisposable {
  readonly #server: Server;
  readonly #targets: readonly string[];
  readonly #sockets = new Set<Socket>();
  #next = 0;

  private constructor(targets: readonly string[]) {
    this.#targets = targets;
    this.#server = createServer((near) => this.#join(near, 0));
  }

  /** @param targets paths of the adaptors' sockets */
  static async open(path: string, targets: readonly string[]): Promise<Balancer> {
    const balancer = new Balancer(targets);
    await new Promise<void>((resolve, reject) => {
      balancer.#server.once("error", reject).listen(path, resolve);
    });
    return balancer;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #join(near: Socket, refused: number): void {
    const target = this.#targets[this.#next++ % this.#targets.length];
    if (target === undefined || refused >= this.#targets.length) {
      near.destroy();
      return;
    }
    const far = connect(target);
    const onRefused = (): void => this.#join(near, refused + 1);
    far.once("error", onRefused);
    far.once("connect", () => {
      far.off("error", onRefused);
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        this.#sockets.add(from);
        from.on("error", () => to.destroy());
        from.on("close", () => {
          this.#sockets.delete(from);
          to.destroy();
        });
      }
      near.pipe(far);
      far.pipe(near);
    });
  }
}
