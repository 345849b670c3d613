/**
 * What the mirror reports: the counts since the last report, as points that never change again.
 *
 * Promises: every count is in exactly one report. A report's points keep their timestamp however
 * often they are sent, so that a second write of the same point replaces the first; two reports
 * never share a timestamp. A point that InfluxDB refuses is given back, and its counts are in the
 * next report. The memory it needs is bounded by the ledger's series.
 *
 * - `shishi_events`: `accepted` and `stored` since the last report, for series that changed. Rows
 *   without event type (shape `row`, or an empty one) have no `event_type` tag: the protocol knows
 *   no empty tag, and InfluxQL treats both alike.
 * - `shishi_collector`: one point a report. `inserts`, `retries` and `dead` are counts since the
 *   last report too, so that sums over time are right across restarts; the others are gauges.
 */

import type { Clock, Holdings, Ledger } from "../contracts.ts";
import type { Measurement, Point } from "./influx.ts";
import { tagValue } from "./tag.ts";

/** The measurements, as InfluxDB is told about them. */
export const MEASUREMENTS: readonly Measurement[] = [
  {
    name: "shishi_events",
    tags: ["event_type", "table", "group", "id"],
    integers: ["accepted", "stored"],
    floats: [],
  },
  {
    name: "shishi_collector",
    tags: ["group", "id"],
    integers: ["held", "held_bytes", "spool_bytes", "inserts", "retries", "dead", "rss_bytes"],
    floats: ["insert_ms_p50", "insert_ms_p99"],
  },
];

/** A point that can be taken back as long as it is not written. */
export interface ReportPoint extends Point {
  /** Puts its counts into the next report. To be called once at most. */
  giveBack(): void;
}

export interface ReporterDeps {
  readonly ledger: Ledger;
  readonly holdings: Holdings;
  readonly group: string;
  readonly id: string;
  readonly clock: Clock;
  readonly rssBytes: () => number;
}

/** Makes reports. */
export interface Reporter {
  next(): ReportPoint[];
}

export function createReporter(deps: ReporterDeps): Reporter {
  const { ledger, holdings, clock } = deps;
  const who = tags({ group: deps.group, id: deps.id });
  /** Cumulative counts that reports have covered, by series. */
  const covered = new Map<string, Record<"accepted" | "stored", number>>();
  const work = { inserts: 0, retries: 0, dead: 0 };
  let lastMs = 0;
  // Two collectors by the same name (a copied container) must not overwrite each other's points.
  const salt = String(Math.floor(clock.random() * 1e6)).padStart(6, "0");

  /** Milliseconds that only rise, also when the clock is set back. */
  function nextTimestampNs(): string {
    lastMs = Math.max(Math.floor(clock.nowMs()), lastMs + 1);
    return `${lastMs}${salt}`;
  }

  return {
    next() {
      const timestampNs = nextTimestampNs();
      const { inserts, retries, insertMsP50, insertMsP99 } = ledger.work();
      const delta = take(work, { inserts, retries, dead: ledger.totals().dead });
      const points: ReportPoint[] = [{
        measurement: "shishi_collector",
        tags: who,
        fields: {
          ...delta.fields,
          held: holdings.rows(),
          held_bytes: holdings.memoryBytes(),
          spool_bytes: holdings.spoolBytes(),
          insert_ms_p50: insertMsP50,
          insert_ms_p99: insertMsP99,
          rss_bytes: deps.rssBytes(),
        },
        timestampNs,
        giveBack: delta.giveBack,
      }];
      for (const { table, eventType, accepted, stored } of ledger.typeTotals()) {
        const key = `${table.length}:${table}${eventType}`;
        let before = covered.get(key);
        if (before === undefined) covered.set(key, before = { accepted: 0, stored: 0 });
        const { fields, giveBack } = take(before, { accepted, stored });
        if (fields.accepted === 0 && fields.stored === 0) continue;
        points.push({
          measurement: "shishi_events",
          tags: { ...tags({ event_type: eventType, table }), ...who },
          fields,
          timestampNs,
          giveBack,
        });
      }
      return points;
    },
  };
}

/** What was added since `covered`, which is moved on to `current`. */
function take<K extends string>(covered: Record<K, number>, current: Record<K, number>) {
  const names = Object.keys(current) as K[];
  const fields = Object.fromEntries(
    names.map((name) => [name, current[name] - covered[name]]),
  ) as Record<K, number>;
  Object.assign(covered, current);
  const giveBack = () => names.forEach((name) => covered[name] -= fields[name]);
  return { fields, giveBack };
}

function tags(texts: Readonly<Record<string, string>>): Record<string, string> {
  const values = Object.entries(texts).map(([name, text]) => [name, tagValue(text)] as const);
  return Object.fromEntries(values.filter(([, value]) => value !== null)) as Record<string, string>;
}
