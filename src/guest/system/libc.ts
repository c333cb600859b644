import { constants } from "node:os";
import { getSystemErrorMessage } from "node:util";
import koffi from "koffi";

/** What koffi takes: numbers, bigints, strings, typed arrays (as pointers) and null. */
export type CArgument = number | bigint | string | ArrayBufferView | null;

type CFunction = (...args: readonly CArgument[]) => number | bigint;

let library: ReturnType<typeof koffi.load> | undefined;
const functions = new Map<string, CFunction>();

/**
 * Calls a function of the C library on the calling thread.
 * @param prototype C prototype; a variadic argument is given as its type's name followed by its value
 * @throws Error with `code` ("ENOENT") and `errno` when the function returns -1, like Node's own system errors
 */
export function libc(prototype: string, ...args: readonly CArgument[]): number {
  const result = Number(bound(prototype)(...args));
  if (result === -1) throw systemError(/(\w+)\(/.exec(prototype)?.[1] ?? prototype, koffi.errno());
  return result;
}

/** Address of a buffer's first byte. The caller keeps the buffer referenced for as long as C may use it. */
export function addressOf(buffer: ArrayBufferView): bigint {
  return BigInt(koffi.address(buffer));
}

function bound(prototype: string): CFunction {
  let f = functions.get(prototype);
  if (f === undefined) {
    library ??= koffi.load("libc.so.6");
    f = library.func(prototype) as unknown as CFunction;
    functions.set(prototype, f);
  }
  return f;
}

function systemError(call: string, errno: number): NodeJS.ErrnoException {
  // not getSystemErrorName: libuv has no name for some, such as ECHILD
  const code = Object.entries(constants.errno).find(([, value]) => value === errno)?.[0] ?? `errno ${errno}`;
  const error: NodeJS.ErrnoException = new Error(`${code}: ${getSystemErrorMessage(-errno)}, ${call}`);
  error.code = code;
  error.errno = -errno;
  error.syscall = call;
  return error;
}
