import { deferred } from "../../src/base/deferred.ts";
import { Code, StatusError } from "../../src/ttrpc/index.ts";

interface TinyProcess {
  readonly exit: ReturnType<typeof deferred<number>>;
  output: Buffer;
  over: boolean;
  /** Wakes readers. */
  wake: () => void;
}

const NOTHING = new Uint8Array();
const GREETING = "hello\n";
/** What an exec ends with when its input is closed. */
const EXEC_EXIT = 7;

/**
 * An agent that knows requests and answers as bytes only, by their field numbers: a container says hello and runs until it
 * is killed, an exec gives its input back and ends with 7 when that is closed.
 */
export class TinyAgent {
  /** Method and payload of every request, in order. */
  readonly requests: { readonly method: string; readonly payload: Buffer }[] = [];
  readonly #processes = new Map<string, TinyProcess>();

  /** @throws StatusError as kata-agent: NOT_FOUND for what is not there */
  async answer(method: string, payload: Uint8Array): Promise<Uint8Array> {
    this.requests.push({ method, payload: Buffer.from(payload) });
    const fields = readFields(Buffer.from(payload));
    const container = String(fields.get(1) ?? "");
    const exec = String(fields.get(2) ?? "");
    switch (method) {
      case "CreateContainer":
        this.#add(`${container}/${container}`, GREETING);
        return NOTHING;
      case "ExecProcess":
        this.#add(`${container}/${exec}`, "");
        return NOTHING;
      case "WaitProcess":
        return number(await this.#process(container, exec).exit.promise);
      case "SignalProcess":
        this.#signal(container, exec, Number(fields.get(3)));
        return NOTHING;
      case "WriteStdin":
        return this.#write(this.#process(container, exec), fields.get(3) as Buffer);
      case "CloseStdin":
        end(this.#process(container, exec), EXEC_EXIT);
        return NOTHING;
      case "ReadStdout":
        return this.#read(`${container}/${exec}`, Number(fields.get(3)));
      default:
        return NOTHING; // ReadStderr: its end
    }
  }

  #add(key: string, output: string): void {
    this.#processes.set(key, {
      ...{ exit: deferred<number>(), output: Buffer.from(output), over: false, wake: () => undefined },
    });
  }

  #process(container: string, exec: string): TinyProcess {
    const found = this.#processes.get(`${container}/${exec}`);
    if (found === undefined || found.over)
      throw new StatusError(Code.notFound, `process ${exec} of ${container} is not there`);
    return found;
  }

  #signal(container: string, exec: string, signal: number): void {
    if (exec !== "") end(this.#process(container, exec), 128 + signal);
    else for (const [key, process] of this.#processes) if (key.startsWith(`${container}/`)) end(process, 128 + signal);
  }

  #write(process: TinyProcess, data: Buffer): Uint8Array {
    process.output = Buffer.concat([process.output, data]);
    process.wake();
    return number(data.length);
  }

  async #read(key: string, length: number): Promise<Uint8Array> {
    const process = this.#processes.get(key);
    if (process === undefined) throw new StatusError(Code.notFound, `process ${key} is not there`);
    while (process.output.length === 0 && !process.over)
      await new Promise<void>((resolve) => {
        process.wake = resolve;
      });
    const data = process.output.subarray(0, length);
    process.output = process.output.subarray(data.length);
    return data.length === 0 ? NOTHING : Buffer.concat([Buffer.from([0x0a, data.length]), data]);
  }
}

function end(process: TinyProcess, status: number): void {
  process.over = true;
  process.exit.resolve(status);
  process.wake();
}

/** A message with nothing but a number in field 1. */
function number(value: number): Uint8Array {
  const bytes = value < 128 ? [value] : [(value & 127) | 128, value >> 7];
  return Uint8Array.from([0x08, ...bytes]);
}

/** The outermost fields of a message: varints as numbers, the rest as bytes; of a repeated one the last. */
function readFields(bytes: Buffer): ReadonlyMap<number, number | Buffer> {
  const fields = new Map<number, number | Buffer>();
  let at = 0;
  const varint = (): number => {
    let [value, shift] = [0, 1];
    for (;;) {
      const byte = bytes[at++] ?? 0;
      value += (byte & 127) * shift;
      if (byte < 128) return value;
      shift *= 128;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const value = varint();
    if ((tag & 7) === 0) fields.set(tag >> 3, value);
    else {
      fields.set(tag >> 3, bytes.subarray(at, at + value));
      at += value;
    }
  }
  return fields;
}
