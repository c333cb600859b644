/** What node daemon and guest agree on beside the protocol files. */

/** TCP port of the guest's TLS listener; the stock forwarder's as well. */
export const GUEST_PORT = 15150;

/** Metadata by which our agent recognises repeated calls; other agents ignore it. */
export const REQUEST_KEY = "kata-remote-request";

/** On ReadStdout/ReadStderr: bytes received so far. On WriteStdin: offset of the first byte. Decimal. */
export const STREAM_OFFSET = "kata-remote-offset";

/**
 * ALPN of a tree connection; without ALPN a connection speaks ttrpc. The sender writes u32be length + JSON {"treeId"},
 * then frames (u32be length + bytes) of a tar stream, a frame of length 0, and the 32 bytes of the stream's SHA-256.
 * The guest answers once, u32be length + JSON: {"ok":true,"bytes","sha256"}, {"ok":true,"skipped":true} as soon as it
 * knows that it has the tree, or {"ok":false,"code","message"} with a Fault's code.
 */
export const TREE_ALPN = "kata-remote-tree/1";

/** Driver of a Storage whose source is a treeId: mounted at mount_point as an overlay over that tree. */
export const TREE_STORAGE_DRIVER = "kata-remote-tree";

/** Driver of a Storage whose source is the id of a cloud's volume: the guest finds it, formats an empty one and mounts it. */
export const VOLUME_STORAGE_DRIVER = "kata-remote-volume";

/** Serial console lines of a guest; the fingerprint is lower-case hex of the key's SHA-256 (SPKI, DER). */
export const CONSOLE_KEY_PREFIX = "kata-remote: guest key sha256:";
export const CONSOLE_LISTENING = "kata-remote: listening";

export {
  GUEST_PULL_DRIVER,
  type ImageSettings,
  PULL_DIGEST_OPTION,
  type RegistryLogin,
  type RegistrySettings,
} from "./image-settings.ts";

/**
 * First argument of an ExecProcess that starts no program: our agent connects to the port (second argument) on the pod's
 * localhost, and the "process" has the connection as its standard streams. Other agents find no such program.
 */
export const DIAL_PROGRAM = "kata-remote:dial";

/**
 * Feature of our agent in GetGuestDetails, and metadata of a CopyFile whose data is a pack: u32be length + CopyFileRequest
 * for each file, carried out in order. Nothing else of such a request counts.
 */
export const PACKED_FILES = "kata-remote-packed-files";
