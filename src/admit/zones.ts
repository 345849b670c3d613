/**
 * Which instant clocks in a zone mean by what they show. Twice a year in many zones they are put forward over
 * an hour that they never show, and ClickHouse stores the hour before in its place; or back, and show
 * an hour twice, of which ClickHouse takes the first.
 */

const DAY_MS = 86_400_000;
/** Days are forgotten beyond so many, all zones together. */
const MOST_DAYS = 20_000;

/** Of a zone, by day since 1970: how far its clocks are ahead at the beginning of the day (UTC), milliseconds. */
const days = new Map<string, Map<number, number | null>>();
const formats = new Map<string, Intl.DateTimeFormat | null>();
let known = 0;

/**
 * Epoch milliseconds of what clocks in a zone show.
 * @param shownMs as if it were UTC. @returns null: they never show it. What is not known of a zone, or lies
 * before 1970, is reckoned from what is known of its day.
 */
export function instantOf(zone: string, shownMs: number): number | null {
  const before = aheadMs(zone, shownMs - DAY_MS);
  const after = aheadMs(zone, shownMs + DAY_MS);
  if (before === null || after === null) return shownMs;
  if (before === after || shownMs < 0) return shownMs - before;
  // The earlier one first: the larger is taken away.
  for (const ahead of [Math.max(before, after), Math.min(before, after)]) {
    if (aheadMs(zone, shownMs - ahead) === ahead) return shownMs - ahead;
  }
  return null;
}

/** How far clocks in a zone are ahead of UTC at an instant; null for a zone, or an offset, that is not known. */
function aheadMs(zone: string, ms: number): number | null {
  const day = Math.floor(ms / DAY_MS);
  const first = ofDay(zone, day);
  return first === ofDay(zone, day + 1) ? first : asked(zone, ms);
}

function ofDay(zone: string, day: number): number | null {
  let ofZone = days.get(zone);
  if (ofZone === undefined) days.set(zone, ofZone = new Map());
  let ahead = ofZone.get(day);
  if (ahead === undefined) {
    if (known++ >= MOST_DAYS) {
      days.clear();
      known = 0;
    }
    ofZone.set(day, ahead = asked(zone, day * DAY_MS));
  }
  return ahead;
}

function asked(zone: string, ms: number): number | null {
  const parts = formatOf(zone)?.formatToParts(ms);
  const name = parts?.find(({ type }) => type === "timeZoneName")?.value;
  if (name === "GMT") return 0;
  const [, sign, hours, minutes] = /^GMT([+-])(\d\d):(\d\d)$/.exec(name ?? "") ?? [];
  if (sign === undefined) return null;
  return (Number(hours) * 60 + Number(minutes)) * (sign === "-" ? -60_000 : 60_000);
}

/** Making one costs more than asking it a hundred times. */
function formatOf(zone: string): Intl.DateTimeFormat | null {
  let format = formats.get(zone);
  if (format === undefined) {
    try {
      format = new Intl.DateTimeFormat("en-US", { timeZone: zone, timeZoneName: "longOffset" });
    } catch {
      format = null;
    }
    formats.set(zone, format);
  }
  return format;
}
