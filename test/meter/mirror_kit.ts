/** A mirror between a ledger that a test feeds and an InfluxDB that a test breaks. */

import assert from "node:assert/strict";
import type { Clock, TypeTotals } from "../../src/contracts.ts";
import { createLedger } from "../../src/meter/ledger.ts";
import { createMirror, type MirrorDeps } from "../../src/meter/mirror.ts";
import { systemClock } from "../../src/kernel/time.ts";
import { memoryLog } from "../kit/chunks.ts";
import type { MemoryInflux } from "../kit/memory_influx.ts";
import type { Influx } from "../kit/servers.ts";
import { events, fixedHoldings, rows } from "./kit.ts";

const SPEED = 20;
/** Of the hasty clock: 20 s, which a busy machine needs for a write of thousands of series. */
export const LONG_MS = 400_000;
/** Of one exchange with a server that never ends its answer: a second of the hasty clock. */
export const BRIEF_MS = 20_000;

/** Real time, but intervals, timeouts and backoffs are short. */
export const hastyClock: Clock = {
  ...systemClock,
  after: (delayMs, task) => systemClock.after(delayMs / SPEED, task),
};

export function setUp(url: string, database: string, more: Partial<MirrorDeps> = {}) {
  const ledger = createLedger();
  const log = memoryLog();
  const mirror = createMirror({
    endpoint: { url, user: "", password: "", database, label: url },
    intervalMs: 500,
    ledger,
    holdings: fixedHoldings(),
    group: "eu",
    id: "host-1",
    clock: hastyClock,
    log,
    rssBytes: () => 1e8,
    timeoutMs: LONG_MS,
    ...more,
  });
  /** Some events and rows come and most are stored; different ones each time. */
  let turn = 0;
  const feed = () => {
    turn++;
    const batch = events({ click: 3 * turn, view: 1, [`type ${turn % 7}`]: 2 });
    ledger.accepted(batch);
    ledger.accepted(rows("flights", "row", turn));
    ledger.settled(batch, 1, new Map([["view", 1]]));
    ledger.settled(rows("flights", "row", turn), 0, new Map());
    ledger.insert("analytics_events", batch.rows, 5);
    ledger.insertError("flights", 241);
  };
  return { ledger, log, mirror, feed };
}

/** What InfluxDB holds, as the ledger would say it; types as they stand in the tag. */
export async function sums(influx: Influx, database: string): Promise<TypeTotals[]> {
  const found = await influx.query(
    database,
    'SELECT sum(accepted) AS accepted, sum(stored) AS stored FROM shishi_events GROUP BY "table", event_type',
  );
  return found.map((row) => ({
    table: String(row.table),
    eventType: String(row.event_type),
    accepted: Number(row.accepted),
    stored: Number(row.stored),
  }));
}

/** The same of an InfluxDB in memory. */
export function totalsIn(memory: MemoryInflux, database: string): TypeTotals[] {
  return memory.series(database, "shishi_events").map(({ tags, sums }) => ({
    table: tags.table ?? "",
    eventType: tags.event_type ?? "",
    accepted: sums.accepted ?? 0,
    stored: sums.stored ?? 0,
  }));
}

export function assertSame(found: readonly TypeTotals[], ledger: Iterable<TypeTotals>): void {
  const sorted = (all: Iterable<TypeTotals>) =>
    [...all].filter(({ accepted, stored }) => accepted + stored > 0)
      .map(({ table, eventType, accepted, stored }) => [table, eventType, accepted, stored])
      .sort((a, b) => JSON.stringify(a) < JSON.stringify(b) ? -1 : 1);
  assert.deepEqual(sorted(found), sorted(ledger));
}
