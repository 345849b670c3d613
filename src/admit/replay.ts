/**
 * `Shishi-Replay: TABLE/ID`: dead letters that are sent again. The rows become a batch of their own with
 * this id; a request that comes twice is answered from what became of the first. Pure.
 */

export interface Replay {
  readonly table: string;
  /** A UUIDv8 that the letters decide. */
  readonly id: string;
}

const REPLAY =
  /^([A-Za-z_][A-Za-z0-9_]{0,126})\/([0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12})$/;

/** @returns null for a header that cannot be read. */
export function parseReplay(header: string): Replay | null {
  const match = REPLAY.exec(header);
  return match === null ? null : { table: match[1]!, id: match[2]! };
}
