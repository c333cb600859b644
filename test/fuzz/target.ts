import type { Duplex } from "node:stream";
import type { Random } from "./random.ts";

/** One call that the target knows, to be mutated. */
export interface Sample {
  readonly service: string;
  readonly method: string;
  readonly payload: Buffer;
}

/** What a target's process says of itself. */
export interface Usage {
  readonly rssBytes: number;
  /** Heap and buffers in use, after a collection. */
  readonly usedBytes: number;
  readonly descriptors: number;
}

/** A socket under attack, its server in a process of its own. */
export interface Target {
  readonly name: string;
  readonly samples: readonly Sample[];
  /** A connection on which frames are read. */
  connect(): Promise<Duplex>;
  /** A connection on which something else than frames is expected, and bytes to spoil for it. */
  readonly garbage?: (r: Random) => { connect(): Promise<Duplex>; readonly bytes: Buffer };
  /** A well-formed call on a connection of its own. @throws Error when it is not answered as it must be */
  probe(): Promise<void>;
  usage(): Promise<Usage>;
  /** How the process ended, undefined while it lives. */
  ended(): string | undefined;
  close(): Promise<void>;
}
