/**
 * The two messages inside frames, byte for byte what generated code makes of proto/ttrpc/ttrpc.proto. Written by hand
 * because they are on the path of every call: payloads are neither copied out nor decoded twice.
 * Source: containerd/ttrpc request.proto (v1.2.7), google/rpc/status.proto.
 */
import { type StatusDetail, StatusError } from "./status.ts";
import type { Metadata } from "./types.ts";
import {
  delimited,
  delimitedUnlessEmpty,
  int32Varint,
  uint64Bytes,
  varintBytes,
  WireReader,
  writeUint64,
  writeVarint,
} from "./wire.ts";

export { MalformedMessage } from "./wire.ts";

/** Tags `field << 3 | wire type`. */
const Tag = {
  requestService: 0x0a,
  requestMethod: 0x12,
  requestPayload: 0x1a,
  requestTimeout: 0x20,
  requestMetadata: 0x2a,
  responseStatus: 0x0a,
  responsePayload: 0x12,
  statusCode: 0x08,
  statusMessage: 0x12,
  statusDetail: 0x1a,
  first: 0x0a,
  second: 0x12,
} as const;

const NO_BYTES: Buffer = Buffer.alloc(0);
const NO_METADATA: Metadata = Object.freeze([]);
/** Largest double below 2^63. */
const MAX_TIMEOUT_NANO = 2 ** 63 - 1024;

export interface RequestEnvelope {
  readonly service: string;
  readonly method: string;
  /** A view of the frame. */
  readonly payload: Buffer;
  /** 0: none. Negative: passed already when it was sent. */
  readonly timeoutNano: number;
  readonly metadata: Metadata;
}

export interface ResponseEnvelope {
  /** Absent when the call succeeded, also when the peer sent a status of code 0. */
  readonly error: StatusError | undefined;
  /** A view of the frame. */
  readonly payload: Buffer;
}

/**
 * Service and method of the request before: most are for the same one, and its names are then neither read nor hashed anew.
 * One for each connection.
 */
export interface LastTarget {
  bytes: Buffer;
  service: string;
  method: string;
}

/** A target is kept up to this length, bytes. */
const KEPT_TARGET_BYTES = 256;

/** @throws MalformedMessage */
export function decodeRequest(body: Buffer, last?: LastTarget): RequestEnvelope {
  const known = last?.bytes.length ?? 0;
  const same = last !== undefined && known > 0 && known <= body.length && last.bytes.compare(body, 0, known) === 0;
  const reader = new WireReader(body, same ? known : 0);
  let service = same ? last.service : "";
  let method = same ? last.method : "";
  let payload = NO_BYTES;
  let timeoutNano = 0;
  let metadata: (readonly [string, string])[] | undefined;
  while (!reader.done) {
    const tag = reader.tag();
    switch (tag) {
      case Tag.requestService:
        service = reader.string();
        break;
      case Tag.requestMethod:
        method = reader.string();
        if (
          last !== undefined &&
          !same &&
          reader.position <= KEPT_TARGET_BYTES &&
          payload.length === 0 &&
          timeoutNano === 0 &&
          metadata === undefined
        ) {
          // Nothing else that counts stands before it. A copy: a view would keep what was read with it.
          Object.assign(last, { bytes: Buffer.from(body.subarray(0, reader.position)), service, method });
        }
        break;
      case Tag.requestPayload:
        payload = reader.bytes();
        break;
      case Tag.requestTimeout:
        timeoutNano = reader.int64();
        break;
      case Tag.requestMetadata:
        metadata ??= [];
        metadata.push(decodeKeyValue(reader.message()));
        break;
      default:
        reader.skip(tag);
    }
  }
  return { service, method, payload, timeoutNano, metadata: metadata ?? NO_METADATA };
}

function decodeKeyValue(reader: WireReader): readonly [string, string] {
  let key = "";
  let value = "";
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === Tag.first) key = reader.string();
    else if (tag === Tag.second) value = reader.string();
    else reader.skip(tag);
  }
  return [key.toLowerCase(), value];
}

/** @throws MalformedMessage */
export function decodeResponse(body: Buffer): ResponseEnvelope {
  const reader = new WireReader(body);
  let error: StatusError | undefined;
  let payload = NO_BYTES;
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === Tag.responsePayload) payload = reader.bytes();
    else if (tag === Tag.responseStatus) error = decodeStatus(reader.message());
    else reader.skip(tag);
  }
  return { error, payload };
}

function decodeStatus(reader: WireReader): StatusError | undefined {
  let code = 0;
  let message = "";
  const details: StatusDetail[] = [];
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === Tag.statusCode) code = reader.uint32() | 0;
    else if (tag === Tag.statusMessage) message = reader.string();
    else if (tag === Tag.statusDetail) details.push(decodeAny(reader.message()));
    else reader.skip(tag);
  }
  return code === 0 ? undefined : new StatusError(code, message, details);
}

function decodeAny(reader: WireReader): StatusDetail {
  let typeUrl = "";
  let value: Uint8Array = NO_BYTES;
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === Tag.first) typeUrl = reader.string();
    else if (tag === Tag.second)
      value = Buffer.from(reader.bytes()); // a copy: errors are kept longer than frames
    else reader.skip(tag);
  }
  return { typeUrl, value };
}

/** Fields 1 and 2 of a request. They are the same for every call of a method. */
export function encodeTarget(service: string, method: string): Buffer {
  return Buffer.concat([delimitedUnlessEmpty(1, service), delimitedUnlessEmpty(2, method)]);
}

/** Field 5 of a request, keys in lower case. Every call through a relay has one: it is put together in one buffer. */
export function encodeMetadata(metadata: Metadata | undefined): Buffer {
  if (metadata === undefined || metadata.length === 0) return NO_BYTES;
  const sized = metadata.map(([name, value]) => {
    const key = name.toLowerCase();
    const keyBytes = Buffer.byteLength(key);
    const valueBytes = Buffer.byteLength(value);
    return { key, keyBytes, value, valueBytes, bytes: textBytes(keyBytes) + textBytes(valueBytes) };
  });
  const target = Buffer.allocUnsafe(sized.reduce((sum, { bytes }) => sum + 1 + varintBytes(bytes) + bytes, 0));
  let at = 0;
  for (const { key, keyBytes, value, valueBytes, bytes } of sized) {
    target[at] = Tag.requestMetadata;
    at = writeVarint(target, at + 1, bytes);
    at = writeText(target, at, Tag.first, key, keyBytes);
    at = writeText(target, at, Tag.second, value, valueBytes);
  }
  return target;
}

/** Bytes of a string field; an empty one is left out. */
function textBytes(length: number): number {
  return length === 0 ? 0 : 1 + varintBytes(length) + length;
}

function writeText(target: Buffer, at: number, tag: number, text: string, length: number): number {
  if (length === 0) return at;
  target[at] = tag;
  const to = writeVarint(target, at + 1, length);
  target.write(text, to, length, "utf8");
  return to + length;
}

/** Nanoseconds for the wire: at least 1, since 0 would mean none. */
export function timeoutNano(ms: number): number {
  return Math.min(MAX_TIMEOUT_NANO, Math.max(1, Math.round(ms * 1e6)));
}

/** Bytes of the payload field's tag and length; an empty payload is left out. */
export function payloadHeadBytes(payloadBytes: number): number {
  return payloadBytes === 0 ? 0 : 1 + varintBytes(payloadBytes);
}

/** Writes what precedes a request's payload bytes, returns the position after it. */
export function writeRequestHead(target: Buffer, at: number, encodedTarget: Buffer, payloadBytes: number): number {
  target.set(encodedTarget, at);
  const to = at + encodedTarget.length;
  return payloadBytes === 0 ? to : writePayloadHead(target, to, Tag.requestPayload, payloadBytes);
}

/** Bytes of what follows a request's payload. */
export function requestTailBytes(timeout: number, encodedMetadata: Buffer): number {
  return (timeout === 0 ? 0 : 1 + uint64Bytes(timeout)) + encodedMetadata.length;
}

/** Writes what follows a request's payload, returns the position after it. `timeout` in ns, 0: none. */
export function writeRequestTail(target: Buffer, at: number, timeout: number, encodedMetadata: Buffer): number {
  let to = at;
  if (timeout !== 0) {
    target[to] = Tag.requestTimeout;
    to = writeUint64(target, to + 1, timeout);
  }
  if (encodedMetadata.length === 0) return to;
  target.set(encodedMetadata, to);
  return to + encodedMetadata.length;
}

/** Writes what precedes a successful response's payload bytes, returns the position after it. */
export function writeResponseHead(target: Buffer, at: number, payloadBytes: number): number {
  return payloadBytes === 0 ? at : writePayloadHead(target, at, Tag.responsePayload, payloadBytes);
}

function writePayloadHead(target: Buffer, at: number, tag: number, payloadBytes: number): number {
  target[at] = tag;
  return writeVarint(target, at + 1, payloadBytes);
}

/** A whole response body for a failed call. Code 0 must not be given. */
export function encodeErrorResponse(error: StatusError): Buffer {
  const status: Uint8Array[] = [
    Buffer.of(Tag.statusCode),
    int32Varint(error.code),
    delimitedUnlessEmpty(2, error.message),
  ];
  for (const { typeUrl, value } of error.details) {
    status.push(delimited(3, Buffer.concat([delimitedUnlessEmpty(1, typeUrl), delimitedUnlessEmpty(2, value)])));
  }
  return delimited(1, Buffer.concat(status));
}
