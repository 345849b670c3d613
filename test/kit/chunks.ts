/** Chunks and a silent log for tests of the batch room. */

import type { Reservation } from "../../src/batch/batch.ts";
import type { TableQueue } from "../../src/batch/queue.ts";
import type { Chunk, Log, LogFields, Shape } from "../../src/contracts.ts";

export interface ChunkOptions {
  readonly table?: string;
  readonly shape?: Shape;
  readonly fingerprint?: string | null;
}

/** A chunk of these rows, each one line; the counts by type are read from the rows themselves. */
export function chunkOf(rows: readonly object[], options: ChunkOptions = {}): Chunk {
  const shape = options.shape ?? "event";
  const types = new Map<string, number>();
  if (shape === "event") {
    for (const row of rows) {
      const type = (row as { eventType: string }).eventType;
      types.set(type, (types.get(type) ?? 0) + 1);
    }
  }
  return {
    table: options.table ?? "events",
    shape,
    rows: rows.length,
    body: new TextEncoder().encode(rows.map((row) => JSON.stringify(row) + "\n").join("")),
    types,
    fingerprint: options.fingerprint ?? null,
  };
}

let serial = 0;

/** `rows` events of one type, each different from every other one. */
export function events(rows: number, options: ChunkOptions & { type?: string } = {}): Chunk {
  const { type = "click" } = options;
  return chunkOf(
    Array.from({ length: rows }, () => ({ eventType: type, userId: `u${serial++}` })),
    options,
  );
}

/** One row of exactly `bytes` bytes, newline included. */
export function rowOfBytes(bytes: number, options: ChunkOptions = {}): Chunk {
  const letter = String.fromCharCode(97 + serial++ % 26);
  const frame = JSON.stringify({ eventType: "big", userId: "" }).length + 1;
  if (bytes < frame) throw new Error(`a row has at least ${frame} bytes`);
  return chunkOf([{ eventType: "big", userId: letter.repeat(bytes - frame) }], options);
}

export interface LogLine {
  readonly level: keyof Log;
  readonly message: string;
  readonly fields: LogFields;
}

export function memoryLog(): Log & { readonly lines: LogLine[] } {
  const lines: LogLine[] = [];
  const at = (level: keyof Log) => (message: string, fields: LogFields = {}) => {
    lines.push({ level, message, fields });
  };
  return { lines, debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
}

/** Reserves room for a chunk and fills it at once, as `ack=memory` does. */
export function fill(queue: TableQueue, chunk: Chunk, nowMs: number): Reservation[] {
  const reservations = queue.reserve(chunk, nowMs);
  for (const reservation of reservations) reservation.batch.commit(reservation);
  return reservations;
}
