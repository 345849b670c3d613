/**
 * `npm run soak -- --minutes 10 [--seed N]`: everything at random, for as long as you like. Many
 * clients write to two tables; the collector and ClickHouse are killed, answers are cut, columns
 * dropped, the spool fills up, rows are bad. In the end each acknowledged row is in ClickHouse exactly
 * once, or a dead letter where it was bad: then the exit code is 0. The seed decides what goes wrong
 * and in which order; the machine decides the rest.
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { freePort } from "../kit/free_port.ts";
import { ManualClock } from "../kit/manual_clock.ts";
import { startClickHouse } from "../kit/servers.ts";
import { startTcpProxy } from "../kit/tcp_proxy.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { pause } from "../kit/wait.ts";
import { drained } from "./drained.ts";
import { Collector } from "./soak_collector.ts";
import { Crowd } from "./soak_crowd.ts";
import { FAULTS, type Stage } from "./soak_faults.ts";

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "10" },
    seed: { type: "string", default: String(Date.now() % 1_000_000_000) },
  },
});
const minutes = Number(values.minutes);
const seed = Number(values.seed);
if (!(minutes > 0) || !Number.isSafeInteger(seed)) {
  console.error("soak: --minutes wants a number above 0, --seed a whole number");
  process.exit(2);
}

/** Blocks that ClickHouse remembers: more than are sent while one of them waits to be sent again. */
const WINDOW = "SETTINGS non_replicated_deduplication_window = 20000";
const TELL_MS = 5_000;
const DRAINED_MS = 120_000;

const random = seeded(seed);
console.log(`soak: seed ${seed}, ${minutes} minutes`);
const clickhouse = await startClickHouse();
await clickhouse.query(
  "CREATE TABLE analytics_events (id UUID, timestamp DateTime64(3, 'UTC'), " +
    "event_type LowCardinality(String), user_id String, " +
    `properties Map(LowCardinality(String), String)) ENGINE = MergeTree ORDER BY id ${WINDOW}`,
);
await clickhouse.query(
  `CREATE TABLE seed (id UUID, Time DateTime, Value String) ENGINE = MergeTree ORDER BY id ${WINDOW}`,
);
const proxy = await startTcpProxy(clickhouse.port);
const dataDir = tempDir("soak");
const listen = `127.0.0.1:${await freePort()}`;
const collector = new Collector([
  ...["--clickhouse-url", proxy.url, "--listen", listen, "--data-dir", dataDir],
  ...["--tables", "seed", "--flush-interval", "100ms", "--max-block-size", "500"],
  ...["--backlog-bytes", "2MiB", "--spool-max-bytes", "1500KiB", "--insert-timeout", "3s"],
  ...["--shutdown-timeout", "1s"],
]);
await collector.start();
const crowd = new Crowd(`http://${listen}`, random);
const stage: Stage = { clickhouse, proxy, collector, random };

const beganMs = performance.now();
const endMs = beganMs + minutes * 60_000;
const done: Record<string, number> = {};
let failed: unknown = null;
try {
  const over = () => performance.now() >= endMs || collector.broken !== null;
  const hands = [...new Set(FAULTS.map(({ hand }) => hand))].map(async (hand) => {
    const faults = FAULTS.filter((fault) => fault.hand === hand);
    while (!over()) {
      await pause(200 + random() * 4_000);
      const fault = faults[Math.floor(random() * faults.length)]!;
      await fault.strike(stage);
      done[fault.name] = (done[fault.name] ?? 0) + 1;
    }
  });
  const tell = setInterval(progress, TELL_MS);
  // A hand that fails ends everything.
  await Promise.all(hands).finally(() => clearInterval(tell));
  await crowd.stop();
  progress();
  if (collector.broken !== null) throw collector.broken;
  await drained(collector.running, DRAINED_MS);
  await collector.terminate();
  await finalLedger();
} catch (problem) {
  failed = problem;
}
await crowd.stop();
const stderr = collector.stderr();
await collector.close();
await proxy.close();
await clickhouse.close();
if (failed === null) removeDir(dataDir);
else {
  console.error(stderr.slice(-4_000));
  console.error(`soak: FAILED with --seed ${seed}; the data-dir is kept: ${dataDir}`, failed);
}
process.exit(failed === null ? 0 : 1);

function progress(): void {
  const { events, rows, bad } = crowd;
  const faults = Object.entries(done).map(([name, times]) => `${name} ${times}`).join(", ");
  console.log(
    `soak: ${Math.round((performance.now() - beganMs) / 1000)} s, acknowledged ` +
      `${events.acknowledged.size} + ${rows.acknowledged.size} + ${bad.acknowledged.size} bad, ` +
      `statuses ${JSON.stringify([...crowd.statuses])}, most held ${collector.mostHeld}, ` +
      `scrapes ${collector.scrapes}; ${faults}`,
  );
}

/** The rows of every acknowledgement against ClickHouse and the dead letters. */
async function finalLedger(): Promise<void> {
  const found = {
    analytics_events: await crowd.events.assertOnce(clickhouse),
    seed: await crowd.rows.assertOnce(clickhouse, "seed"),
    dead: 0,
    // What a kill tore before it was acknowledged.
    quarantined: readdirSync(join(dataDir, "quarantine")).length,
  };
  const letters = new Set<string>();
  const folder = join(dataDir, "dead");
  for (const name of readdirSync(folder)) {
    if (!name.endsWith(".ndjson")) continue;
    for (const line of readFileSync(join(folder, name), "utf8").split("\n")) {
      if (line !== "") letters.add(JSON.parse(JSON.parse(line).row).id);
    }
  }
  found.dead = letters.size;
  for (const id of crowd.bad.acknowledged) assert.ok(letters.has(id), `no letter for ${id}`);
  for (const id of letters) {
    assert.ok(crowd.bad.acknowledged.has(id) || crowd.bad.unanswered.has(id), `${id} was good`);
  }
  console.log(`soak: all is there, once: ${JSON.stringify(found)}, seed ${seed}`);
}

/** Chance in [0, 1) that a seed decides. */
function seeded(seed: number): () => number {
  const clock = new ManualClock(seed);
  return () => clock.random();
}
