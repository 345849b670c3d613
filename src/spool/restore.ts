/**
 * What an earlier process left in the spool becomes batches again, while new rows are already taken.
 * The rows stay on disk until it is their turn.
 */

import type { Clock, Log } from "../contracts.ts";
import { HeldBatch } from "../batch/held.ts";
import type { Pump } from "../batch/pump.ts";
import type { Quarantined, RecoveredSegment } from "./recovery.ts";
import { SEAL_BYTES } from "./segment.ts";

/** A sealed batch whose rows are on disk only. */
export function batchOf(found: RecoveredSegment, nowMs: number): HeldBatch {
  const batch = new HeldBatch(found.id, found, found.oldestMs ?? nowMs);
  batch.rows = found.rows;
  batch.bytes = found.bytes;
  for (const [type, rows] of found.types) batch.types.set(type, rows);
  // About: quarantined parts of the file are not counted.
  const bytes = found.bytes + found.ranges.length * SEAL_BYTES;
  batch.segment = { path: found.path, bytes, file: null, keep: found.keep };
  batch.close();
  batch.leaveMemory();
  return batch;
}

/**
 * Resolves when all segments are read, or the pump has ended: the rest is for the next start. Says in
 * the log what there was.
 */
export async function restoreAll(
  found: AsyncIterable<RecoveredSegment | Quarantined>,
  pump: Pump,
  log: Log,
  clock: Clock,
): Promise<void> {
  let batches = 0;
  let rows = 0;
  let quarantined = 0;
  for await (const item of found) {
    if (item.kind === "quarantined") {
      quarantined++;
      continue;
    }
    if (!pump.restore(batchOf(item, clock.nowMs()))) return;
    batches++;
    rows += item.rows;
  }
  if (batches + quarantined > 0) log.info("spool recovered", { batches, rows, quarantined });
}
