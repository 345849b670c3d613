/**
 * Ids for events that bring none: UUIDv7 (RFC 9562). Time first, so that ids of one moment lie together
 * and compress well; the 74 random bits are the scanner's to fill in.
 */

/** Bytes of a written UUID. */
export const ID_BYTES = 36;

/** An id of `nowMs` (epoch milliseconds), zero where it is random. */
export function idOf(nowMs: number): string {
  const time = nowMs.toString(16).padStart(12, "0");
  return `${time.slice(0, 8)}-${time.slice(8)}-7000-8000-000000000000`;
}
