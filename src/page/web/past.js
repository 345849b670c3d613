/** The past hour as the charts want it: columns of equal length, the first one the time in seconds. */
// @ts-check

/** @typedef {(number | null)[][]} Columns */

const HOUR_S = 3600;
/** Two samples further apart than this are not joined by a line. */
const GAP_S = 5;

/**
 * What the collector knows, behind what only the page knows still, of a process before it.
 * @param {Columns} known
 * @param {Columns} told
 * @returns {Columns}
 */
export function joined(known, told) {
  const first = told[0]?.[0] ?? Infinity;
  const kept = (known[0] ?? []).filter((at) => /** @type {number} */ (at) < first).length;
  const all = told.map((column, index) => [...(known[index] ?? []).slice(0, kept), ...column]);
  return limited(all);
}

/**
 * One more sample; a gap is kept open by an empty one. Where the collector's clock is set back, what
 * lies ahead of it goes: else the charts would stand still until it is there again. Changes and returns
 * the columns.
 * @param {Columns} columns
 * @param {readonly (number | null)[]} sample
 */
export function appended(columns, sample) {
  const at = sample[0] ?? 0;
  if (columns[0]?.at(-1) === at) return columns;
  const ahead = (columns[0] ?? []).findIndex((time) => /** @type {number} */ (time) >= at);
  if (ahead >= 0) { for (const column of columns) column.length = ahead; }
  const last = columns[0]?.at(-1) ?? -Infinity;
  if (at - last > GAP_S && last !== -Infinity) {
    columns.forEach((column, index) => column.push(index === 0 ? last + 1 : null));
  }
  columns.forEach((column, index) => column.push(sample[index] ?? null));
  return limited(columns);
}

/** @param {Columns} columns */
function limited(columns) {
  const times = columns[0] ?? [];
  const from = (times.at(-1) ?? 0) - HOUR_S;
  let late = 0;
  while (late < times.length && /** @type {number} */ (times[late]) < from) late++;
  if (late > 0) { for (const column of columns) column.splice(0, late); }
  return columns;
}
