import { delimited, WireReader } from "../ttrpc/index.ts";

/** Fields that matter, `number << 3 | 2`. Source: proto/agent/agent.proto, proto/agent/oci.proto. */
const Tag = {
  oci: 0x32,
  mounts: 0x2a,
  annotations: 0x3a,
  key: 0x0a,
  value: 0x12,
  destination: 0x0a,
  source: 0x12,
} as const;

export interface ContainerMount {
  readonly destination: string;
  readonly source: string;
}

/** What a CreateContainerRequest says of mounts and annotations; the rest stays bytes. */
export interface ContainerRequest {
  readonly mounts: readonly ContainerMount[];
  readonly annotations: ReadonlyMap<string, string>;
}

/** @throws MalformedMessage */
export function readContainerRequest(payload: Buffer): ContainerRequest {
  const mounts: ContainerMount[] = [];
  const annotations = new Map<string, string>();
  for (const oci of fields(payload, Tag.oci)) {
    for (const mount of fields(oci.bytes, Tag.mounts)) {
      const { [Tag.destination]: destination = "", [Tag.source]: source = "" } = strings(mount.bytes);
      mounts.push({ destination, source });
    }
    for (const entry of fields(oci.bytes, Tag.annotations)) {
      const { [Tag.key]: key = "", [Tag.value]: value = "" } = strings(entry.bytes);
      annotations.set(key, value);
    }
  }
  return { mounts, annotations };
}

/**
 * Sets annotations of a CreateContainerRequest. Every other byte stays as it was, unknown fields too: entries are put
 * behind the last one of the map, where they win.
 * @throws MalformedMessage
 */
export function setAnnotations(payload: Buffer, added: ReadonlyMap<string, string>): Buffer {
  const oci = fields(payload, Tag.oci).at(-1);
  const entries = [...added].map(([key, value]) =>
    delimited(7, Buffer.concat([delimited(1, key), delimited(2, value)])),
  );
  const spec = delimited(6, Buffer.concat([oci?.bytes ?? Buffer.alloc(0), ...entries]));
  const [from, to] = oci === undefined ? [payload.length, payload.length] : [oci.from, oci.to];
  return Buffer.concat([payload.subarray(0, from), spec, payload.subarray(to)]);
}

interface Field {
  readonly bytes: Buffer;
  /** Where it lies in the message, its tag included. */
  readonly from: number;
  readonly to: number;
}

function fields(message: Buffer, wanted: number): Field[] {
  const reader = new WireReader(message);
  const found: Field[] = [];
  while (!reader.done) {
    const from = reader.position;
    const tag = reader.tag();
    if (tag !== wanted) reader.skip(tag);
    else found.push({ bytes: reader.bytes(), from, to: reader.position });
  }
  return found;
}

function strings(message: Buffer): Readonly<Record<number, string>> {
  const reader = new WireReader(message);
  const found: Record<number, string> = {};
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === 0x0a || tag === 0x12) found[tag] = reader.string();
    else reader.skip(tag);
  }
  return found;
}
