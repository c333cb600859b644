import { Fault } from "../../base/fault.ts";
import { GUEST_PULL_DRIVER } from "../../guestwire/index.ts";

/** Option of a rootfs mount by which a snapshotter (nydus) or CRI-O asks for something else than a mount. Source: Kata, KataVirtualVolume */
const VOLUME_OPTION = "io.katacontainers.volume=";

/**
 * The image that a rootfs mount asks to have pulled in the guest.
 * @returns undefined for an ordinary mount; "" when it does not name the image
 * @throws Fault invalid_argument for an option that cannot be read, unimplemented for another kind of volume
 */
export function imageOfMounts(
  mounts: readonly { readonly type: string; readonly options: readonly string[] }[],
): string | undefined {
  for (const { type, options } of mounts) {
    const option = options.find((o) => o.startsWith(VOLUME_OPTION));
    if (option !== undefined) return imageOf(option.slice(VOLUME_OPTION.length));
    if (type === "fuse.nydus-overlayfs" || options.some((o) => o.startsWith("io.katacontainers."))) {
      throw new Fault(
        "unimplemented",
        `a rootfs mount of type "${type}" with options ${options.join(",").slice(0, 200)} is not supported: only ${GUEST_PULL_DRIVER} is; use the overlayfs snapshotter`,
      );
    }
  }
  return undefined;
}

function imageOf(base64: string): string {
  let volume: { readonly volume_type?: unknown; readonly source?: unknown } | null;
  try {
    volume = JSON.parse(Buffer.from(base64, "base64").toString("utf8")) as typeof volume;
  } catch (cause) {
    throw new Fault(
      "invalid_argument",
      `rootfs mount option ${VOLUME_OPTION}… is not base64 of JSON; it comes from the snapshotter`,
      {},
      { cause },
    );
  }
  if (volume?.volume_type === GUEST_PULL_DRIVER) return typeof volume.source === "string" ? volume.source : "";
  throw new Fault(
    "unimplemented",
    `rootfs mount option ${VOLUME_OPTION}… asks for a volume of type "${String(volume?.volume_type)}": only ${GUEST_PULL_DRIVER} is supported; use the overlayfs snapshotter`,
  );
}
