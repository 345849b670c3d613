/**
 * What a running collector says of itself, read as an operator would: `/metrics` and `/api/status`.
 * The watch reads them while a test does its worst, and every reading must balance.
 */
import assert from "node:assert/strict";
import { pause } from "../kit/wait.ts";
import type { Shishi } from "../kit/shishi.ts";

export interface Totals {
  readonly received: number;
  readonly recovered: number;
  readonly rejected: number;
  readonly stored: number;
  readonly dead: number;
  readonly held: number;
  readonly lost: number;
}

/** Throws unless received + recovered = rejected + stored + dead + held + lost. */
export function assertBalance(totals: Totals, where: string): void {
  const { received, recovered, rejected, stored, dead, held, lost } = totals;
  assert.equal(
    received + recovered,
    rejected + stored + dead + held + lost,
    `${where}: ${JSON.stringify(totals)}`,
  );
}

/** Samples of Prometheus' text format: `name{labels}` → value. */
export type Samples = ReadonlyMap<string, number>;

export async function metrics(shishi: Shishi): Promise<Samples> {
  const { status, text } = await shishi.get("/metrics");
  assert.equal(status, 200, text);
  const samples = new Map<string, number>();
  for (const line of text.split("\n")) {
    if (line === "" || line.startsWith("#")) continue;
    const space = line.lastIndexOf(" ");
    samples.set(line.slice(0, space), Number(line.slice(space + 1)));
  }
  return samples;
}

/** All samples of one name, whatever their labels; only those with `label`, e.g. `code="0"`. */
export function sum(samples: Samples, name: string, label = ""): number {
  let total = 0;
  for (const [key, value] of samples) {
    if (key !== name && !key.startsWith(`${name}{`)) continue;
    if (key.includes(label)) total += value;
  }
  return total;
}

/** INSERTs that were sent, whatever came of them. */
export async function insertsSent(shishi: Shishi): Promise<number> {
  const samples = await metrics(shishi);
  return sum(samples, "shishi_insert_rows_count") + sum(samples, "shishi_insert_errors_total");
}

/** The books as `/metrics` tells them. */
export function totalsOf(samples: Samples): Totals {
  const rows = (what: string) => sum(samples, `shishi_rows_${what}`);
  return {
    received: rows("received_total"),
    recovered: rows("recovered_total"),
    rejected: rows("rejected_total"),
    stored: rows("stored_total"),
    dead: rows("dead_total"),
    held: rows("held"),
    lost: rows("lost_total"),
  };
}

/** What a watch saw. */
export interface Watched {
  readonly scrapes: number;
  readonly rssMiB: { readonly first: number; readonly most: number };
  readonly mostHeld: number;
  readonly states: ReadonlySet<string>;
}

/** Scrapes both twice a second until it is ended; `end` throws if a scrape did not balance. */
export function watch(shishi: Shishi): { end(): Promise<Watched> } {
  let running = true;
  let scrapes = 0;
  let first = 0;
  let most = 0;
  let mostHeld = 0;
  const states = new Set<string>();
  const look = async () => {
    const samples = await metrics(shishi);
    assertBalance(totalsOf(samples), "/metrics");
    const status = await shishi.status();
    assertBalance(status.ledger, "/api/status");
    assert.equal(status.ledger.lost, 0);
    states.add(status.state);
    for (const [table, totals] of Object.entries(status.tables)) {
      assertBalance(totals as Totals, `/api/status, table ${table}`);
    }
    const rss = sum(samples, "process_resident_memory_bytes") / 1024 / 1024;
    if (scrapes === 0) first = rss;
    most = Math.max(most, rss);
    mostHeld = Math.max(mostHeld, status.ledger.held);
    scrapes++;
  };
  const looking = (async () => {
    while (running) {
      await look();
      await pause(500);
    }
    await look();
  })();
  // A failure is told by `end`, not by the process.
  looking.catch(() => {});
  return {
    end: async () => {
      running = false;
      await looking;
      return {
        scrapes,
        rssMiB: { first: Math.round(first), most: Math.round(most) },
        mostHeld,
        states,
      };
    },
  };
}

/** For `eventually`: throws unless nothing is held or lost, and the books balance. */
export async function assertDelivered(shishi: Shishi): Promise<Totals> {
  const { ledger } = await shishi.status();
  assertBalance(ledger, "/api/status");
  assert.equal(ledger.held, 0, `held: ${ledger.held}`);
  assert.equal(ledger.lost, 0, `lost: ${ledger.lost}`);
  return ledger;
}

/** Readable figures in the test's output, for the closing note of a change. */
export function say(what: string, figures: Readonly<Record<string, unknown>>): void {
  const told = Object.entries(figures).map(([name, value]) => `${name} ${value}`).join(", ");
  console.log(`${what}: ${told}`);
}
