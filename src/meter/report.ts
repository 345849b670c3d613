/**
 * What the mirror reports: the counts since the last report, as points that never change again.
 *
 * Promises: every count is in exactly one report. A report's points keep their timestamp however
 * often they are sent, so that a second write of the same point replaces the first; two reports
 * never share a timestamp. The counts of a point that InfluxDB refuses are given back: they are in
 * the next report, under the timestamp they had, so that they replace the refused point should it be
 * stored after all. The memory it needs is bounded by the ledger's series.
 *
 * - `shishi_events`: `accepted` and `stored` since the last report, for series that changed. Rows
 *   without event type (shape `row`, or an empty one) have no `event_type` tag: the protocol knows
 *   no empty tag, and InfluxQL treats both alike.
 * - `shishi_collector`: one point a report. `inserts`, `retries`, `rejected`, `dead` and `lost` are
 *   counts since the last report too, so that sums over time are right across restarts; the others
 *   are gauges.
 */

import type { Clock, Holdings, Ledger } from "../contracts.ts";
import type { Measurement, Point } from "./influx.ts";
import { tagValue } from "./label.ts";

/** The measurements, as the library wants them declared. */
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
    integers: [
      "held",
      "held_bytes",
      "spool_bytes",
      "inserts",
      "retries",
      "rejected",
      "dead",
      "lost",
      "rss_bytes",
    ],
    floats: ["insert_ms_p50", "insert_ms_p99", "oldest_s"],
  },
];

/** A point that can be taken back as long as it is not known to be written. */
export interface ReportPoint extends Point {
  /**
   * Puts its counts into the next report, under the same timestamp; under a later one when the point
   * is `outlived`, older than all that the database keeps. To be called once at most.
   */
  giveBack(outlived: boolean): void;
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

/** What reports have covered of a series. */
interface Series {
  readonly covered: Record<string, number>;
  /** The timestamp of a point that was given back, which the next one takes over. */
  againNs: string | null;
}

export function createReporter(deps: ReporterDeps): Reporter {
  const { ledger, holdings, clock } = deps;
  const who = tags({ group: deps.group, id: deps.id });
  const series = new Map<string, Series>();
  let lastMs = 0;
  // Two collectors by the same name (a copied container) must not overwrite each other's points.
  const salt = String(Math.floor(clock.random() * 1e6)).padStart(6, "0");

  /** Milliseconds that only rise, also when the clock is set back. */
  function nextTimestampNs(): string {
    lastMs = Math.max(Math.floor(clock.nowMs()), lastMs + 1);
    return `${lastMs}${salt}`;
  }

  /** What is to be said of a series whose counts are `counts`. */
  function take(key: string, counts: Readonly<Record<string, number>>, freshNs: string) {
    let own = series.get(key);
    if (own === undefined) series.set(key, own = { covered: {}, againNs: null });
    const { covered, againNs } = own;
    const fields: Record<string, number> = {};
    for (const [name, count] of Object.entries(counts)) {
      fields[name] = count - (covered[name] ?? 0);
      covered[name] = count;
    }
    own.againNs = null;
    const timestampNs = againNs ?? freshNs;
    const giveBack = (outlived: boolean) => {
      for (const [name, count] of Object.entries(fields)) covered[name]! -= count;
      own.againNs = outlived ? null : timestampNs;
    };
    return { fields, timestampNs, giveBack };
  }

  function collectorPoint(timestampNs: string): ReportPoint {
    const { inserts, retries, insertMsP50, insertMsP99 } = ledger.work();
    const { rejected, dead, lost } = ledger.totals();
    const taken = take("", { inserts, retries, rejected, dead, lost }, timestampNs);
    return {
      ...taken,
      measurement: "shishi_collector",
      tags: who,
      fields: {
        ...taken.fields,
        held: holdings.rows(),
        held_bytes: holdings.memoryBytes(),
        spool_bytes: holdings.spoolBytes(),
        oldest_s: holdings.oldestMs() / 1000,
        insert_ms_p50: insertMsP50,
        insert_ms_p99: insertMsP99,
        rss_bytes: deps.rssBytes(),
      },
    };
  }

  return {
    next() {
      const timestampNs = nextTimestampNs();
      const points = [collectorPoint(timestampNs)];
      for (const { table, eventType, accepted, stored } of ledger.typeTotals()) {
        const key = `${table.length}:${table}${eventType}`;
        const taken = take(key, { accepted, stored }, timestampNs);
        if (taken.fields.accepted === 0 && taken.fields.stored === 0) continue;
        points.push({
          ...taken,
          measurement: "shishi_events",
          tags: { ...tags({ event_type: eventType, table }), ...who },
        });
      }
      return points;
    },
  };
}

function tags(texts: Readonly<Record<string, string>>): Record<string, string> {
  const values = Object.entries(texts).map(([name, text]) => [name, tagValue(text)] as const);
  return Object.fromEntries(values.filter(([, value]) => value !== null)) as Record<string, string>;
}
