import { Fault } from "../../base/fault.ts";

/** The paths of a Create request. */
export interface CreatePaths {
  readonly bundle: string;
  readonly stdin: string;
  readonly stdout: string;
  readonly stderr: string;
  readonly rootfs: readonly { readonly source: string; readonly target: string }[];
}

/** What no file can be called is refused by its field, before anything is done. @throws Fault invalid_argument */
export function checkPaths({ bundle, stdin, stdout, stderr, rootfs }: CreatePaths): void {
  if (!bundle.startsWith("/"))
    throw new Fault("invalid_argument", `bundle = ${JSON.stringify(bundle)}: it must be an absolute path`);
  const mounts = rootfs.flatMap(({ source, target }, i) => [
    [`rootfs[${i}].source`, source],
    [`rootfs[${i}].target`, target],
  ]);
  for (const [field, value = ""] of [...Object.entries({ bundle, stdin, stdout, stderr }), ...mounts])
    if (value.includes("\0"))
      throw new Fault("invalid_argument", `${field} = ${JSON.stringify(value)}: a path cannot hold a NUL byte`);
}
