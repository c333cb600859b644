/** Whom a door serves. */
export interface DoorName {
  readonly address: string;
  /** Absent: the caller says it in each call's metadata. */
  readonly namespace: string | undefined;
}

const WITH_NAMESPACE = /^([A-Za-z0-9][A-Za-z0-9_.-]*)@(.*)$/s;

/**
 * Reads `<namespace>@<containerd address>`, or an address alone. The launcher asks for a door per namespace: containerd
 * 1.6 does not say the namespace in its calls, and the same id may live in two of them.
 * Source: seen with containerd 1.6.20 (calls carry no metadata); containerd pkg/identifiers (namespace names).
 */
export function parseDoorName(text: string): DoorName {
  const found = WITH_NAMESPACE.exec(text);
  if (found === null) return { address: text, namespace: undefined };
  return { namespace: found[1] as string, address: found[2] as string };
}
