/**
 * The mirror against an InfluxDB in memory, under random sequences of what can happen to a request.
 * The seed is printed; to repeat a run set SHISHI_SEED, and SHISHI_PATH to the path that fast-check
 * names. SHISHI_RUNS: how many, instead of 250.
 * Runs once: InfluxDB and time are the test's own; mirror_test.ts has a real one on both runtimes.
 */

import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import fc from "fast-check";
import type { TypeTotals } from "../../src/contracts.ts";
import { startFakeInflux } from "../kit/fake_influx.ts";
import { createMemoryInflux } from "../kit/memory_influx.ts";
import { ManualClock } from "../kit/manual_clock.ts";
import { eventually } from "../kit/wait.ts";
import { type Fault, faultyFetch, SOCKET_FAULTS } from "./faulty_influx.ts";
import { assertSame, LONG_MS, setUp, totalsIn } from "./mirror_kit.ts";

const seed = Number(process.env.SHISHI_SEED ?? Date.now() % 2 ** 31);
const path = process.env.SHISHI_PATH;
const RUNS = Number(process.env.SHISHI_RUNS ?? 250);
const repeat = { seed, ...(path === undefined ? {} : { path }) };

const fault: fc.Arbitrary<Fault> = fc.oneof(
  { weight: 4, arbitrary: fc.constant<Fault>("pass") },
  { weight: 4, arbitrary: fc.constantFrom<Fault>("lost", "hang after", "500 after", "half after") },
  {
    weight: 6,
    arbitrary: fc.constantFrom<Fault>(
      "refuse",
      "hang",
      "half",
      "endless",
      "page",
      "redirect",
      "proxy 400",
      "400",
      "401",
      "404",
      "413",
      "429",
      "500",
      "503",
    ),
  },
);

/** For so long these happen to the requests, in turn, while rows come and are stored. */
const phase = fc.record({
  faults: fc.array(fault, { minLength: 1, maxLength: 5 }),
  /** Series whose points InfluxDB itself refuses. */
  poison: fc.constantFrom("", "", "view", "flights", "click", "shishi_collector"),
  maxBodyBytes: fc.constantFrom(25_000_000, 25_000_000, 600, 1500, 100),
  feeds: fc.nat(3),
  forMs: fc.integer({ min: 0, max: 90_000 }),
});

test("whatever happens to the requests, the sums are the ledger's", {
  timeout: 120_000,
}, async () => {
  console.log(`mirror model: seed ${seed}, ${RUNS} runs`);
  const seen = { requests: 0, errors: 0, replaced: 0 };
  const property = fc.asyncProperty(
    fc.array(phase, { minLength: 1, maxLength: 12 }),
    fc.nat(),
    async (phases, chance) => {
      const memory = createMemoryInflux();
      const clock = new ManualClock(chance);
      const influx = faultyFetch(memory);
      const { ledger, mirror, feed } = setUp("http://influx", "d", {
        clock,
        fetch: influx.fetch,
        intervalMs: 10_000,
        timeoutMs: 4000,
      });
      mirror.start();
      for (const { faults, poison, maxBodyBytes, feeds, forMs } of phases) {
        influx.behave(faults, poison);
        memory.maxBodyBytes = maxBodyBytes;
        for (let n = 0; n < feeds; n++) feed();
        await clock.advance(forMs);
        assertNotMore(totalsIn(memory, "d"), ledger.typeTotals());
      }
      influx.behave(["pass"], "");
      memory.maxBodyBytes = 25_000_000;
      feed();
      let ended = false;
      const end = mirror.writeLast(600_000).then(() => ended = true);
      for (let n = 0; n < 60 && !ended; n++) await clock.advance(1000);
      assert.ok(ended, "with a willing InfluxDB the last counts take a minute at most");
      await end;
      assertSame(totalsIn(memory, "d"), ledger.typeTotals());
      assert.deepEqual(collectorSums(memory), {
        inserts: ledger.work().inserts,
        retries: ledger.work().retries,
        dead: ledger.totals().dead,
      });
      assert.equal(clock.pending, 0);
      assert.ok(influx.most() <= 1, "one request at a time");
      const series = [...ledger.typeTotals()].length + 1;
      assert.ok(influx.mostPoints() <= series, "reports do not pile up");
      seen.requests += influx.requests();
      seen.replaced += influx.repeated();
      seen.errors += ledger.mirrorErrors();
    },
  );
  try {
    await fc.assert(property, { numRuns: RUNS, ...repeat });
  } catch (problem) {
    console.log(`mirror model: failed with seed ${seed}`);
    throw problem;
  }
  console.log(`mirror model: ${JSON.stringify(seen)}`);
  // A model to which nothing happens proves nothing.
  if (path === undefined) {
    assert.ok(seen.requests > RUNS * 5 && seen.errors > RUNS && seen.replaced > RUNS);
  }
});

test("the same through real sockets", { timeout: 60_000 }, async () => {
  const faults = fc.sample(fc.constantFrom(...SOCKET_FAULTS), { numRuns: 24, seed });
  console.log(`mirror over sockets: seed ${seed}`);
  const memory = createMemoryInflux();
  const fake = await startFakeInflux(memory);
  try {
    const { ledger, mirror, feed } = setUp(fake.url, "d", { intervalMs: 100, timeoutMs: 4000 });
    let at = 0;
    // Every other request goes through, so that reports follow each other.
    fake.behave(() => at++ % 2 === 0 ? "pass" : faults[(at >> 1) % faults.length]!);
    mirror.start();
    await eventually(() => {
      feed();
      assertNotMore(totalsIn(memory, "d"), ledger.typeTotals());
      assert.ok(at > 2 * faults.length, `${at}`);
    }, { withinMs: 40_000, everyMs: 10 });
    fake.behave("pass");
    await mirror.writeLast(LONG_MS);
    assertSame(totalsIn(memory, "d"), ledger.typeTotals());
  } finally {
    await fake.close();
  }
});

/** InfluxDB may lag behind; it may never be ahead. */
function assertNotMore(found: readonly TypeTotals[], ledger: Iterable<TypeTotals>): void {
  const known = new Map([...ledger].map((each) => [`${each.table} ${each.eventType}`, each]));
  for (const { table, eventType, accepted, stored } of found) {
    const own = known.get(`${table} ${eventType}`);
    assert.ok(
      own !== undefined && accepted <= own.accepted && stored <= own.stored,
      `${table} ${eventType}: ${accepted} ${stored}, the ledger says ${JSON.stringify(own)}`,
    );
  }
}

function collectorSums(memory: ReturnType<typeof createMemoryInflux>) {
  const [sums] = memory.series("d", "shishi_collector").map((each) => each.sums);
  return { inserts: sums?.inserts, retries: sums?.retries, dead: sums?.dead };
}
