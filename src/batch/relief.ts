/** When memory is too full, and of what. Pure. */

import type { Budget } from "./budget.ts";
import type { Lane } from "./lane.ts";
import type { Schedule } from "./schedule.ts";

/**
 * What waits to be sent may be this part of the memory budget: little, for a runtime lets its heap grow
 * to about twice what is in use. What is being filled or sent is not counted there, or a collector whose
 * ClickHouse keeps up would write large batches to the disk for nothing.
 */
const WAITING = 1 / 8;
/** All together may be this part of it before less may wait. */
const ALL = 1 / 2;
/** Beyond this part the largest open batch is closed early. */
const SQUEEZE = 0.75;

/**
 * Whether batches should leave memory. @param waitingBytes of those that could. @param outage no server
 * answers: what is filled will wait as well, and counts.
 */
export function isTooMuch(
  waitingBytes: number,
  { bytes, limits }: Budget,
  outage: boolean,
): boolean {
  return waitingBytes > limits.maxBytes * WAITING ||
    bytes > limits.maxBytes * (outage ? WAITING : ALL);
}

/**
 * What is not sealed cannot leave memory, and while nothing can be sent nothing seals it: the lane whose
 * open batch is to be closed for that, or null.
 */
export function laneToClose(
  { lanes }: Pick<Schedule, "lanes">,
  { bytes, limits }: Budget,
): Lane | null {
  if (bytes <= limits.maxBytes * SQUEEZE) return null;
  let largest: Lane | null = null;
  let openBytes = 0;
  for (const lane of lanes.values()) {
    openBytes += lane.open?.bytes ?? 0;
    if ((lane.open?.bytes ?? 0) > (largest?.open?.bytes ?? 0)) largest = lane;
  }
  // Otherwise it is what is being sent that fills memory, and many small batches would not help.
  return openBytes < limits.maxBytes * (1 - SQUEEZE) ? null : largest;
}
