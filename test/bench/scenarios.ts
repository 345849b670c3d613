/** What is sent in each closed loop, beside which reference, and which ratio to it is the target. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import type { Ack, SinkName } from "./options.ts";

/** A server that does the least work for the same requests; see reference.ts. */
export type Reference = "bare" | "parse" | "gunzip+parse";

export interface Scenario {
  readonly name: "S1" | "S2" | "S2t" | "S3" | "tables" | "slow";
  readonly what: string;
  readonly path: string;
  readonly rows: number;
  /** Requests go to so many tables in turn, whose names are `path` with a number; 0: to `path` itself. */
  readonly tables: number;
  readonly connections: number;
  readonly encoding: string | null;
  /** Both are measured; the last is the one that the targets are ratios of. */
  readonly references: readonly Reference[];
  readonly targets: Partial<Record<Ack, number>>;
  /** Warming up that it takes at least, where there is any, until it is as it stays. */
  readonly warmupSeconds?: number;
}

/** Of a run of this scenario. @param warmupSeconds of any. */
export function warmupOf(scenario: Scenario, warmupSeconds: number): number {
  return warmupSeconds === 0 ? 0 : Math.max(warmupSeconds, scenario.warmupSeconds ?? 0);
}

/** The share of its reference's rows/s that the collector shall reach; null = none was set. */
export function targetOf(
  { targets }: Scenario,
  { ack, sink }: { readonly ack: Ack; readonly sink: SinkName },
): number | null {
  return sink === "swallow" ? targets[ack] ?? null : null;
}

export const TABLE = "bench_rows";

/** What an acknowledgement costs with so many tables. */
const MANY = [1, 10, 50, 200].map((tables): Scenario => ({
  name: "tables",
  what: `10 rows of a table a request, ${tables} tables in turn, 64 connections`,
  path: `/events/${TABLE}`,
  rows: 10,
  tables,
  connections: 64,
  encoding: null,
  references: [],
  targets: {},
  // Each file of the journal has been written once, and what an INSERT takes is compiled.
  warmupSeconds: 8,
}));

const ONE_EVENT: Scenario = {
  name: "S1",
  what: "one event a request, 64 connections",
  path: "/events",
  rows: 1,
  tables: 0,
  connections: 64,
  encoding: null,
  references: ["parse", "bare"],
  targets: { memory: 0.75, disk: 0.6 },
};

export const SCENARIOS: readonly Scenario[] = [
  ONE_EVENT,
  {
    ...ONE_EVENT,
    what: "one event a request, 512 connections",
    connections: 512,
    references: ["bare"],
    targets: {},
  },
  {
    name: "S2",
    what: "NDJSON of 100 events, 16 connections",
    path: "/events",
    rows: 100,
    tables: 0,
    connections: 16,
    encoding: null,
    references: ["bare", "parse"],
    targets: { memory: 0.65, disk: 0.55 },
  },
  {
    name: "S2t",
    what: "the same 100 as rows of a table, 16 connections",
    path: `/events/${TABLE}`,
    rows: 100,
    tables: 0,
    connections: 16,
    encoding: null,
    references: ["bare", "parse"],
    targets: { memory: 0.85, disk: 0.7 },
  },
  {
    name: "S3",
    what: "gzip of 1,000 events, 8 connections",
    path: "/events",
    rows: 1000,
    tables: 0,
    connections: 8,
    encoding: "gzip",
    references: ["bare", "gunzip+parse"],
    targets: { memory: 0.65, disk: 0.55 },
  },
  ...MANY,
  {
    name: "slow",
    what: "S2 into a sink that takes a second for each INSERT: 429, not growth",
    path: "/events",
    rows: 100,
    tables: 0,
    connections: 16,
    encoding: null,
    references: [],
    targets: {},
  },
];

/** NDJSON of events of about 170 bytes. */
export function eventLines(count: number): string {
  const line = (n: number) =>
    JSON.stringify({
      eventType: "click",
      userId: `u${n}`,
      timestamp: 1_700_000_000_000 + n,
      properties: {
        page: `/pricing/plan-${n}`,
        n,
        ref: "https://example.com/a/b",
        browser: "firefox",
      },
    });
  return Array.from({ length: count }, (_, at) => `${line(at + 1)}\n`).join("");
}

/** Writes the body of a request to a file of `dir`; its path. */
export function bodyFile(
  dir: string,
  { rows, encoding }: Pick<Scenario, "rows" | "encoding">,
): string {
  const path = join(dir, `${rows}${encoding === null ? "" : `.${encoding}`}`);
  const text = eventLines(rows);
  writeFileSync(path, encoding === "gzip" ? gzipSync(text) : text);
  return path;
}
