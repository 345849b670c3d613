/**
 * The InfluxDB mirror: every `intervalMs`, and once at the end, the counts go to InfluxDB.
 *
 * Promises: the sums of `accepted` and `stored` over time equal the ledger, through outages, cut
 * answers and restarts of InfluxDB. A report is sent with the same points and timestamps until all
 * of it is written; meanwhile counts gather in the ledger and the next report is made afterwards, so
 * memory is bounded by one report. It never throws, holds up nothing else, and has one write in flight.
 *
 * How answers are met: no database: it is created, also when it is dropped later. Too large: all
 * that is left goes in smaller writes; every report that goes through tries larger ones again.
 * Refused (400): the write is halved until the point that is refused stands alone; that one is given
 * back to the next report, and the others go through. A refused point may become good (a field type
 * that is corrected), and a count that is thrown away is wrong for ever. It keeps its timestamp,
 * since an earlier write whose answer was lost may have stored it, unless the database keeps nothing
 * so old. Everything else: the same report again, after a backoff.
 */

import type { Clock, Endpoint, Holdings, Ledger, Log } from "../contracts.ts";
import { Backoff } from "../kernel/backoff.ts";
import { nodeUtil } from "../kernel/builtins.ts";
import { createPost, type Fetch } from "../kernel/http.ts";
import { sleep } from "../kernel/time.ts";
import { createInflux, type Measurement, type Point } from "./influx.ts";
import { tagValue } from "./label.ts";

export interface Mirror {
  /** Begins to report, first after one interval. */
  start(): void;
  /**
   * Reports there from now on, first after one interval; null: nowhere, until it is called again. What
   * is not written yet goes where it is sent next, so that the sums over all places stay right.
   */
  adopt(to: Destination | null): void;
  /**
   * Writes what is left and stops: what is under way first, then one last report. Resolves when it
   * is written or `withinMs` milliseconds have passed.
   */
  writeLast(withinMs: number): Promise<void>;
  /** Stops at once. What was not written is missing from InfluxDB. */
  stop(): void;
}

export interface Destination {
  readonly endpoint: Endpoint;
  readonly intervalMs: number;
}

export interface MirrorDeps extends Destination {
  readonly ledger: Ledger;
  readonly holdings: Holdings;
  readonly group: string;
  readonly id: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly rssBytes: () => number;
  /** The global one unless given. */
  readonly fetch?: Fetch;
  /** Of one exchange with InfluxDB; 10 s unless given. */
  readonly timeoutMs?: number;
}

const TIMEOUT_MS = 10_000;
const POINTS_A_WRITE = 1000;
/** In one attempt: a report full of refused points must not become a flood. */
const MOST_REFUSALS = 64;
const BACKOFF = { leastMs: 500, mostMs: 10_000 };
/** While the collector stops. */
const LAST_BACKOFF = { leastMs: 500, mostMs: 1000 };

/** How an attempt to write a report ended. `why` is null when all of it is settled. */
interface Attempt {
  readonly why: string | null;
  /** Points that were refused and given back, and what InfluxDB said to the first. */
  readonly refused: number;
  readonly refusal: string | null;
}

export function createMirror(deps: MirrorDeps): Mirror {
  const { ledger, clock, log } = deps;
  const ending = new AbortController();
  const post = createPost({ fetch: deps.fetch ?? ((url, init) => fetch(url, init)), clock });
  const timeoutMs = deps.timeoutMs ?? TIMEOUT_MS;
  const connect = (endpoint: Endpoint) =>
    createInflux({ endpoint, post, timeoutMs, signal: ending.signal }, MEASUREMENTS);
  let to: Destination | null = { endpoint: deps.endpoint, intervalMs: deps.intervalMs };
  let influx = connect(deps.endpoint);
  const reporter = createReporter(deps);
  let server = new URL(deps.endpoint.url).host;
  /** What is still to be written of the report under way, in writes. */
  let pieces: ReportPoint[][] = [];
  let pointsAWrite = POINTS_A_WRITE;
  const backoff = new Backoff(clock, BACKOFF);
  let cancelTimer = () => {};
  let inFlight: Promise<boolean> | null = null;
  let closing = false;
  let trouble: "away" | "refused" | null = null;

  function schedule(delayMs: number): void {
    cancelTimer();
    if (closing || to === null) return;
    cancelTimer = clock.after(delayMs, async () => {
      const startedMs = clock.monotonicMs();
      const done = await report();
      const spentMs = clock.monotonicMs() - startedMs;
      schedule(done ? Math.max(0, (to?.intervalMs ?? 0) - spentMs) : backoff.failed());
    });
  }

  /** One attempt; true when the report is settled. Never rejects. */
  function report(): Promise<boolean> {
    inFlight = attempt()
      .catch((bug): Attempt => ({ why: `unexpected: ${bug}`, refused: 0, refusal: null }))
      .then((ended) => {
        inFlight = null;
        conclude(ended);
        return ended.why === null;
      });
    return inFlight;
  }

  async function attempt(): Promise<Attempt> {
    if (pieces.length === 0) pieces = cut(reporter.next(), pointsAWrite);
    let refused = 0;
    let refusal: string | null = null;
    let created = false;
    const end = (why: string | null): Attempt => ({ why, refused, refusal });
    let refusals = 0;
    while (pieces.length > 0) {
      const piece = pieces[0]!;
      const answer = await influx.write(piece);
      if (answer.kind === "written") {
        pieces.shift();
      } else if (answer.kind === "no-database") {
        if (created) return end("the database disappears as soon as it is created");
        const made = await influx.createDatabase();
        if (!made.ok) return end(`cannot create the database: ${made.problem}`);
        created = true;
      } else if (answer.kind === "away") {
        return end(answer.message);
      } else if (++refusals > MOST_REFUSALS) {
        return end(`too many refusals: ${answer.message}`);
      } else if (piece.length === 1) {
        pieces.shift();
        piece[0]!.giveBack(answer.kind === "refused" && answer.outlived);
        refusal ??= answer.message;
        refused++;
      } else if (answer.kind === "refused") {
        pieces.splice(0, 1, ...cut(piece, Math.ceil(piece.length / 2)));
      } else {
        pointsAWrite = Math.ceil(piece.length / 2);
        pieces = cut(pieces.flat(), pointsAWrite);
      }
    }
    pointsAWrite = Math.min(POINTS_A_WRITE, pointsAWrite * 2);
    return end(null);
  }

  /** Counts and logs; one line each time the state changes. */
  function conclude({ why, refused, refusal }: Attempt): void {
    if (ending.signal.aborted) return;
    const state = why !== null ? "away" : refused > 0 ? "refused" : null;
    if (why === null) backoff.succeeded();
    if (state !== null) ledger.mirrorError();
    const fields = { server, error: why ?? refusal, refused };
    if (state === trouble) {
      if (state !== null) log.debug("InfluxDB still does not take the counts", fields);
      return;
    }
    trouble = state;
    if (state === "away") log.warn("InfluxDB does not take the counts; they are kept", fields);
    else if (state === "refused") {
      log.error("InfluxDB refuses points; their counts are kept", fields);
    } else log.info("InfluxDB takes the counts again", { server });
  }

  function stop(): void {
    closing = true;
    cancelTimer();
    ending.abort();
  }

  async function writeRest(): Promise<void> {
    await inFlight;
    let last = false;
    while (!ending.signal.aborted) {
      last ||= pieces.length === 0;
      const done = await report();
      if (done && last) return;
      if (!done) await sleep(clock, backoff.failed(LAST_BACKOFF), ending.signal);
    }
  }

  return {
    start: () => schedule(deps.intervalMs),

    adopt(next) {
      if (nodeUtil().isDeepStrictEqual(next, to)) return;
      const moves = next !== null && !nodeUtil().isDeepStrictEqual(next.endpoint, to?.endpoint);
      to = next;
      if (moves) {
        influx = connect(next.endpoint);
        server = new URL(next.endpoint.url).host;
        backoff.succeeded();
        trouble = null;
      }
      // What is under way sets the next time when it ends.
      if (inFlight === null) schedule(next?.intervalMs ?? 0);
    },

    async writeLast(withinMs) {
      if (ending.signal.aborted) return;
      closing = true;
      cancelTimer();
      if (to === null) return stop();
      const cancelDeadline = clock.after(withinMs, () => {
        log.warn("stopping before InfluxDB took the last counts", { server });
        ending.abort();
      });
      await writeRest();
      cancelDeadline();
      stop();
    },

    stop,
  };
}

function cut(points: readonly ReportPoint[], size: number): ReportPoint[][] {
  const pieces: ReportPoint[][] = [];
  for (let at = 0; at < points.length; at += size) pieces.push(points.slice(at, at + size));
  return pieces;
}

// ── What the mirror reports: the counts since the last report, as points that never change again.
//
// Promises: every count is in exactly one report. A report's points keep their timestamp however
// often they are sent, so that a second write of the same point replaces the first; two reports
// never share a timestamp. The counts of a point that InfluxDB refuses are given back: they are in
// the next report, under the timestamp they had, so that they replace the refused point should it be
// stored after all. The memory it needs is bounded by the ledger's series.
//
// - `shishi_events`: `accepted` and `stored` since the last report, for series that changed. Rows
//   without event type (shape `row`, or an empty one) have no `event_type` tag: the protocol knows
//   no empty tag, and InfluxQL treats both alike.
// - `shishi_collector`: one point a report. `inserts`, `retries`, `rejected`, `dead` and `lost` are
//   counts since the last report too, so that sums over time are right across restarts; the others
//   are gauges.

/** The measurements, as the library wants them declared. */
const MEASUREMENTS: readonly Measurement[] = [
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
interface ReportPoint extends Point {
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
