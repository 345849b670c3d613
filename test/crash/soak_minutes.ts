/**
 * The soak by time: everything at random, for as long as you like. Many clients write to two tables; the
 * collector and ClickHouse are killed, answers are cut, columns dropped, the spool fills up, rows are bad.
 * In the end each acknowledged row is in ClickHouse exactly once, or a dead letter where it was bad.
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { freePort } from "../kit/free_port.ts";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { startTcpProxy } from "../kit/tcp_proxy.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { pause } from "../kit/wait.ts";
import { drained } from "./drained.ts";
import { Collector } from "./soak_collector.ts";
import { Crowd } from "./soak_crowd.ts";
import { FAULTS, type Stage } from "./soak_faults.ts";

/** Blocks that ClickHouse remembers: more than are sent while one of them waits to be sent again. */
const WINDOW = "SETTINGS non_replicated_deduplication_window = 20000";
const TELL_MS = 5_000;
const DRAINED_MS = 120_000;

export interface SoakMinutes {
  readonly minutes: number;
  readonly seed: number;
  readonly random: () => number;
}

/** @returns the exit code. */
export async function soakMinutes({ minutes, seed, random }: SoakMinutes): Promise<number> {
  console.log(`soak: seed ${seed}, ${minutes} minutes`);
  const clickhouse = await startClickHouse();
  await createTables(clickhouse);
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
  const done: Record<string, number> = {};
  let failed: unknown = null;
  try {
    await strikeUntil(beganMs + minutes * 60_000, stage, done, () => {
      progress(beganMs, crowd, collector, done);
    });
    await crowd.stop();
    progress(beganMs, crowd, collector, done);
    if (collector.broken !== null) throw collector.broken;
    await drained(collector.running, DRAINED_MS);
    await collector.terminate();
    const found = await finalLedger(crowd, clickhouse, dataDir);
    console.log(`soak: all is there, once: ${JSON.stringify(found)}, seed ${seed}`);
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
  return failed === null ? 0 : 1;
}

async function createTables(clickhouse: ClickHouse): Promise<void> {
  await clickhouse.query(
    "CREATE TABLE analytics_events (id UUID, timestamp DateTime64(3, 'UTC'), " +
      "event_type LowCardinality(String), user_id String, " +
      `properties Map(LowCardinality(String), String)) ENGINE = MergeTree ORDER BY id ${WINDOW}`,
  );
  await clickhouse.query(
    `CREATE TABLE seed (id UUID, Time DateTime, Value String) ENGINE = MergeTree ORDER BY id ${WINDOW}`,
  );
}

/** Both hands break what is theirs, one thing after the other. A hand that fails ends everything. */
async function strikeUntil(
  endMs: number,
  stage: Stage,
  done: Record<string, number>,
  tell: () => void,
): Promise<void> {
  const { collector, random } = stage;
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
  const telling = setInterval(tell, TELL_MS);
  await Promise.all(hands).finally(() => clearInterval(telling));
}

function progress(
  beganMs: number,
  { events, rows, bad, statuses }: Crowd,
  { mostHeld, scrapes }: Collector,
  done: Readonly<Record<string, number>>,
): void {
  const faults = Object.entries(done).map(([name, times]) => `${name} ${times}`).join(", ");
  console.log(
    `soak: ${Math.round((performance.now() - beganMs) / 1000)} s, acknowledged ` +
      `${events.acknowledged.size} + ${rows.acknowledged.size} + ${bad.acknowledged.size} bad, ` +
      `statuses ${JSON.stringify([...statuses])}, most held ${mostHeld}, ` +
      `scrapes ${scrapes}; ${faults}`,
  );
}

/** The rows of every acknowledgement against ClickHouse and the dead letters. */
async function finalLedger(
  crowd: Crowd,
  clickhouse: ClickHouse,
  dataDir: string,
): Promise<Record<string, number>> {
  const letters = lettersIn(join(dataDir, "dead"));
  for (const id of crowd.bad.acknowledged) assert.ok(letters.has(id), `no letter for ${id}`);
  for (const id of letters) {
    assert.ok(crowd.bad.acknowledged.has(id) || crowd.bad.unanswered.has(id), `${id} was good`);
  }
  return {
    analytics_events: await crowd.events.assertOnce(clickhouse),
    seed: await crowd.rows.assertOnce(clickhouse, "seed"),
    dead: letters.size,
    // What a kill tore before it was acknowledged.
    quarantined: readdirSync(join(dataDir, "quarantine")).length,
  };
}

/** Ids of the rows. */
function lettersIn(folder: string): Set<string> {
  const letters = new Set<string>();
  for (const name of readdirSync(folder)) {
    if (!name.endsWith(".ndjson")) continue;
    for (const line of readFileSync(join(folder, name), "utf8").split("\n")) {
      if (line !== "") letters.add(JSON.parse(JSON.parse(line).row).id);
    }
  }
  return letters;
}
