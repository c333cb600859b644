import type { Descriptor } from "./manifest.ts";

/** How far one pull is. */
export class PullProgress {
  #layers = 0;
  #total = 0;
  #bytes = 0;
  readonly #perLayer = new Map<string, number>();

  /** @param layers that have to come; the others are here */
  begin(layers: readonly Descriptor[]): void {
    this.#layers = layers.length;
    this.#total = layers.reduce((sum, { size }) => sum + size, 0);
  }

  /** A layer begins, perhaps again. @returns what its bytes are counted with */
  layer({ digest }: Descriptor): (bytes: number) => void {
    this.#bytes -= this.#perLayer.get(digest) ?? 0;
    this.#perLayer.set(digest, 0);
    return (bytes) => {
      this.#bytes += bytes;
      this.#perLayer.set(digest, (this.#perLayer.get(digest) ?? 0) + bytes);
    };
  }

  get bytes(): number {
    return this.#bytes;
  }

  get totalBytes(): number {
    return this.#total;
  }

  get layers(): number {
    return this.#layers;
  }

  /** "12 of 340 MiB in 5 layers" */
  get text(): string {
    if (this.#layers === 0) return "no layer had come";
    const mib = (n: number): string => (n / 2 ** 20).toFixed(1);
    return `${mib(this.#bytes)} of ${mib(this.#total)} MiB in ${this.#layers} layers had come`;
  }
}
