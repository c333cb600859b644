/** Source: draft-ietf-opsawg-pcap, sections 4 and 5. */
const FILE_HEADER_BYTES = 24;
const RECORD_HEADER_BYTES = 16;
/** Ethernet and IPv4 without options; UDP. */
const ETHERNET_BYTES = 14;
const UDP_BYTES = 8;
const ETHERTYPE_IPV4 = 0x0800;
const PROTOCOL_UDP = 17;

/** Frames of a capture that was written on this machine. */
export function framesOf(capture: Buffer): readonly Buffer[] {
  const frames: Buffer[] = [];
  for (let at = FILE_HEADER_BYTES; at + RECORD_HEADER_BYTES <= capture.length; ) {
    const length = capture.readUInt32LE(at + 8);
    frames.push(capture.subarray(at + RECORD_HEADER_BYTES, at + RECORD_HEADER_BYTES + length));
    at += RECORD_HEADER_BYTES + length;
  }
  return frames;
}

/** What an Ethernet frame carries over UDP and IPv4; undefined for any other. */
export function udpOf(
  frame: Buffer,
): { readonly from: number; readonly to: number; readonly payload: Buffer } | undefined {
  if (frame.length < ETHERNET_BYTES + 20 || frame.readUInt16BE(12) !== ETHERTYPE_IPV4) return undefined;
  const ip = frame.subarray(ETHERNET_BYTES);
  const udp = ip.subarray(4 * (ip.readUInt8(0) & 0xf));
  if (ip[9] !== PROTOCOL_UDP || udp.length < UDP_BYTES) return undefined;
  return { from: udp.readUInt16BE(0), to: udp.readUInt16BE(2), payload: udp.subarray(UDP_BYTES) };
}
