/**
 * Whole lines to stderr, in order, written when the call returns. A pipe may take only a part of a
 * line, or say EAGAIN where whoever started us made it non-blocking; then this waits for the reader,
 * since a line can be the last trace of a row. A reader that takes nothing at all is waited for once:
 * from then on lines are dropped until it takes something again, because a full or closed stderr must
 * not stop a collector.
 */

import { writeSync } from "node:fs";

export interface LineWriterTools {
  /** Bytes that were taken; throws as `writeSync` does. */
  readonly write: (bytes: Uint8Array) => number;
  /** Blocks. */
  readonly sleep: (ms: number) => void;
  /** How long a reader that takes nothing is waited for. */
  readonly patienceMs: number;
}

const PATIENCE_MS = 1_000;
const PAUSE_MS = 2;

export function createLineWriter(tools: LineWriterTools): (line: string) => void {
  const encoder = new TextEncoder();
  let stuck = false;
  let torn = false;
  return (line) => {
    let rest = encoder.encode(torn ? `\n${line}` : line);
    let waitedMs = 0;
    while (rest.length > 0) {
      try {
        const taken = tools.write(rest);
        rest = rest.subarray(taken);
        waitedMs = 0;
        stuck = false;
        torn = rest.length > 0;
      } catch (error) {
        const full = (error as { code?: unknown }).code === "EAGAIN";
        if (!full || stuck || waitedMs >= tools.patienceMs) {
          stuck = true;
          return;
        }
        tools.sleep(PAUSE_MS);
        waitedMs += PAUSE_MS;
      }
    }
  };
}

const cell = new Int32Array(new SharedArrayBuffer(4));

export const writeStderr: (line: string) => void = createLineWriter({
  write: (bytes) => writeSync(2, bytes),
  sleep: (ms) => void Atomics.wait(cell, 0, 0, ms),
  patienceMs: PATIENCE_MS,
});
