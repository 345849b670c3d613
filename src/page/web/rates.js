/** Counts that only grow, as rates over the last seconds. */
// @ts-check

const OVER_S = 5;

/**
 * @returns {(atS: number, counts: ReadonlyMap<string, number>) => Map<string, number>} takes the counts
 * of a moment, gives what came a second; nothing for those that it has not seen before.
 */
export function createRates() {
  /** @type {{ atS: number, counts: ReadonlyMap<string, number> }[]} */
  const seen = [];
  return (atS, counts) => {
    // Another process counts from the start.
    const last = seen.at(-1);
    if (last && (atS <= last.atS || fell(last.counts, counts))) seen.length = 0;
    seen.push({ atS, counts });
    const recent = seen.findLastIndex((one) => atS - one.atS >= OVER_S);
    if (recent > 0) seen.splice(0, recent);
    const first = seen[0] ?? { atS, counts };
    const passedS = atS - first.atS;
    /** @type {Map<string, number>} */
    const rates = new Map();
    for (const [name, value] of counts) {
      const before = first.counts.get(name);
      if (passedS > 0 && before !== undefined) rates.set(name, (value - before) / passedS);
    }
    return rates;
  };
}

/**
 * @param {ReadonlyMap<string, number>} before
 * @param {ReadonlyMap<string, number>} now
 */
function fell(before, now) {
  return [...now].some(([name, value]) => value < (before.get(name) ?? 0));
}
