/**
 * UUIDv7 (RFC 9562): a batch's identity. Begins with the time, so names sort by age on disk and in
 * logs; the rest is chance, from the platform's secure source.
 */

/** @param nowMs epoch milliseconds, taken as the UUID's time. */
export function uuid7(nowMs: number): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  for (let i = 0, time = nowMs; i < 6; i++, time = Math.floor(time / 256)) {
    bytes[5 - i] = time % 256;
  }
  bytes[6] = 0x70 | (bytes[6]! & 0x0f);
  bytes[8] = 0x80 | (bytes[8]! & 0x3f);
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)]
    .join("-");
}
