/**
 * Where the frames of a zstd body end (RFC 8878), without unpacking it. The runtimes' own
 * decompressors return what they have when a frame is cut short, and one of them stops after the
 * first frame; so the frames are found here and unpacked one by one. Pure.
 */

const FRAME = 0xfd2fb528;
/** The low four bits of a skippable frame's magic number are free. */
const SKIPPABLE = 0x184d2a50;

/**
 * The bytes of each frame that holds data, in order; null when the body is cut short or no zstd.
 * @param most frames, skipped ones included; a body of more is `"many"`.
 */
export function zstdFrames(bytes: Uint8Array, most: number): Uint8Array[] | "many" | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const frames: Uint8Array[] = [];
  let at = 0;
  for (let count = 0; at < bytes.length; count++) {
    if (count === most) return "many";
    if (at + 4 > bytes.length) return null;
    const magic = view.getUint32(at, true);
    if (magic === FRAME) {
      const end = frameEnd(view, at);
      if (end < 0) return null;
      frames.push(bytes.subarray(at, end));
      at = end;
    } else if ((magic & 0xfffffff0) >>> 0 === SKIPPABLE) {
      if (at + 8 > bytes.length) return null;
      at += 8 + view.getUint32(at + 4, true);
      if (at > bytes.length) return null;
    } else {
      return null;
    }
  }
  return frames.length === 0 ? null : frames;
}

/** -1 when the frame is cut short or broken. */
function frameEnd(view: DataView, start: number): number {
  const length = view.byteLength;
  if (start + 5 > length) return -1;
  const descriptor = view.getUint8(start + 4);
  const singleSegment = (descriptor & 0x20) !== 0;
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3]!;
  const sizeBytes = [singleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6]!;
  const checksumBytes = (descriptor & 4) !== 0 ? 4 : 0;
  let at = start + 5 + (singleSegment ? 0 : 1) + dictionaryBytes + sizeBytes;
  for (;;) {
    if (at + 3 > length) return -1;
    const header = view.getUint16(at, true) | (view.getUint8(at + 2) << 16);
    const type = (header >> 1) & 3;
    if (type === 3) return -1;
    // A run-length block is one byte, whatever size it unpacks to.
    at += 3 + (type === 1 ? 1 : header >> 3);
    if (at > length) return -1;
    if ((header & 1) !== 0) break;
  }
  at += checksumBytes;
  return at > length ? -1 : at;
}
