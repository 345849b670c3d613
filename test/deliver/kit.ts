/** What the tests of this room share: batches from lines, a silent log, the real clock. */

import type {
  Batch,
  Clock,
  Endpoint,
  JudgeRows,
  Ledger,
  Log,
  Shape,
  Tables,
} from "../../src/contracts.ts";
import type { Fetch } from "../../src/kernel/http.ts";
import { createDeliver, type Deliver, type DeliverSettings } from "../../src/deliver/deliver.ts";

export const realClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  after(delayMs, task) {
    const timer = setTimeout(task, delayMs);
    return () => clearTimeout(timer);
  },
  random: () => Math.random(),
};

/** A clock that stands still until it is moved. */
export function fakeClock(
  random: () => number = () => 0.5,
): Clock & { advance(ms: number): void; pending(): number } {
  let now = 1_700_000_000_000;
  const timers = new Map<number, { at: number; task: () => void }>();
  let next = 0;
  return {
    nowMs: () => now,
    monotonicMs: () => now - 1_700_000_000_000,
    after(delayMs, task) {
      const id = next++;
      timers.set(id, { at: now + delayMs, task });
      return () => void timers.delete(id);
    },
    random,
    advance(ms) {
      now += ms;
      for (const [id, timer] of [...timers]) {
        if (timer.at > now) continue;
        timers.delete(id);
        timer.task();
      }
    },
    pending: () => timers.size,
  };
}

export const silent: Log = { debug() {}, info() {}, warn() {}, error() {} };

export const never = new AbortController().signal;

/** Tables of which nothing is known. */
export const noTables: Tables = {
  columns: () => "unknown",
  lookUp: () => Promise.resolve("unknown"),
  refresh: () => Promise.resolve("unknown"),
  doubt() {},
};

let batches = 0;

/** A batch of row lines (each without its newline). */
export function batchOf(
  lines: readonly string[],
  options: { table?: string; shape?: Shape; fingerprint?: string | null; id?: string } = {},
): Batch {
  const body = new TextEncoder().encode(lines.map((line) => line + "\n").join(""));
  return {
    id: options.id ?? `0192f0c1-0000-7000-8000-${String(batches++).padStart(12, "0")}`,
    table: options.table ?? "t",
    shape: options.shape ?? "row",
    rows: lines.length,
    bytes: body.length,
    types: new Map(),
    oldestMs: 0,
    body: [body],
    fingerprint: options.fingerprint ?? null,
  };
}

export function endpointOf(text: string): Endpoint {
  const url = new URL(text);
  return {
    url: url.origin,
    user: decodeURIComponent(url.username),
    password: decodeURIComponent(url.password),
    database: url.pathname.slice(1) || "default",
    label: url.host,
  };
}

/** The whole room at these URLs. */
export function deliverTo(
  urls: readonly string[],
  options: {
    insertTimeoutMs?: number;
    compress?: DeliverSettings["compress"];
    createTable?: boolean;
    insertSettings?: DeliverSettings["insertSettings"];
    ledger?: Pick<Ledger, "insert" | "insertError">;
    /** The network, which may add, drop or lose something. */
    fetch?: Fetch;
    /** As of `createDeliver`. */
    judge?: JudgeRows;
    /** More of the settings. */
    settings?: Partial<DeliverSettings>;
  } = {},
): Deliver {
  return createDeliver(
    {
      endpoints: urls.map(endpointOf),
      eventsTable: "analytics_events",
      createTable: options.createTable ?? true,
      insertTimeoutMs: options.insertTimeoutMs ?? 10_000,
      compress: options.compress ?? "gzip",
      insertSettings: options.insertSettings ?? [],
      ...options.settings,
    },
    {
      fetch: options.fetch ?? ((url, init) => fetch(url, init)),
      clock: realClock,
      log: silent,
      ...(options.ledger && { ledger: options.ledger }),
      ...(options.judge && { judge: () => options.judge! }),
    },
  );
}

/** Adds query parameters unless a request has them: a profile of the user's, or another version's default. */
export function adding(settings: Readonly<Record<string, string>>, inner: Fetch = fetch): Fetch {
  return (address, init) => {
    const url = new URL(address);
    for (const [name, value] of Object.entries(settings)) {
      if (!url.searchParams.has(name)) url.searchParams.set(name, value);
    }
    return inner(url.href, init);
  };
}

/** The answers to the first `count` INSERTs are lost: the server has done its work, no word of it comes. */
export function losing(count: number, inner: Fetch = fetch): Fetch {
  let left = count;
  return async (address, init) => {
    const answer = await inner(address, init);
    if (left <= 0 || !/[?&]query=INSERT/.test(address)) return answer;
    left--;
    await answer.arrayBuffer();
    throw new TypeError("the connection was reset");
  };
}
