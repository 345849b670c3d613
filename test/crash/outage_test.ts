/**
 * ClickHouse is away for a while (`OUTAGE_S` in the environment, seconds) under a steady load, with so
 * little memory allowed that nearly all of the backlog is on disk only. Memory stays flat; nothing is
 * lost; once it is back, fresh rows do not wait behind the backlog, which drains fast and visibly.
 * Runs once: points_test.ts and random_test.ts have the collector on both runtimes.
 */
import assert from "node:assert/strict";
import process from "node:process";
import { after, before, test } from "node:test";
import { load } from "../kit/load.ts";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { type Shishi, startShishi } from "../kit/shishi.ts";
import { eventually, patient, pause } from "../kit/wait.ts";
import { assertDelivered, metrics, say, sum, watch } from "../system/books.ts";
import { Told } from "./told.ts";

const OUTAGE_S = Number(process.env.OUTAGE_S ?? 15);
const ROWS_PER_S = 5_000;
const MEMORY_BYTES = 4 * 1024 * 1024;
/** Until the runtime has what it needs. */
const WARM_UP_MS = 3_000;
const FRESH_WITHIN_MS = 5_000;

let clickhouse: ClickHouse;
let shishi: Shishi;
before(async () => {
  clickhouse = await startClickHouse();
  shishi = await startShishi({
    args: [
      ...["--clickhouse-url", clickhouse.url, "--backlog-bytes", String(MEMORY_BYTES)],
      ...["--backlog", "100000000", "--spool-max-bytes", "32GiB"],
    ],
  });
});
after(async () => {
  await shishi.close();
  await clickhouse.close();
});

async function rssMiB(): Promise<number> {
  return sum(await metrics(shishi), "process_resident_memory_bytes") / 1024 / 1024;
}

const median = (values: readonly number[]) =>
  [...values].sort((a, b) => a - b)[values.length >> 1] ?? NaN;

interface Sample {
  readonly atMs: number;
  readonly held: number;
}

async function sample(): Promise<Sample> {
  const { held } = (await shishi.status()).ledger;
  return { atMs: performance.now(), held };
}

/** Posts one event and waits until ClickHouse has it. @returns how long that took, milliseconds. */
async function untilVisible(told: Told): Promise<number> {
  const beganMs = performance.now();
  const id = crypto.randomUUID();
  const { status } = await shishi.post({ id, eventType: "fresh" });
  assert.equal(status, 202);
  told.acknowledged.add(id);
  await eventually(async () => {
    const found = await clickhouse.query(
      `SELECT count() FROM analytics_events WHERE event_type = 'fresh' AND id = '${id}'`,
    );
    assert.equal(found, "1");
  }, { withinMs: 60_000, everyMs: 50 });
  return performance.now() - beganMs;
}

test(`${OUTAGE_S} s without ClickHouse at ${ROWS_PER_S} rows/s`, {
  timeout: (OUTAGE_S * 2 + 120) * 1000,
}, async () => {
  const watching = watch(shishi);
  const told = new Told();
  const stop = new AbortController();
  const loading = told.add(load({
    url: shishi.url,
    clients: 20,
    events: Infinity,
    eventsPerRequest: 50,
    rowsPerSecond: ROWS_PER_S,
    signal: stop.signal,
  }));
  await pause(WARM_UP_MS);

  await clickhouse.kill();
  const rss: number[] = [];
  const killedMs = performance.now();
  while (performance.now() - killedMs < OUTAGE_S * 1000) {
    await pause(250);
    rss.push(await rssMiB());
  }
  const away = await shishi.status();
  assert.ok(away.ledger.held > OUTAGE_S * ROWS_PER_S * 0.9, `${away.ledger.held} rows held`);
  assert.ok(away.memory_bytes <= MEMORY_BYTES, `${away.memory_bytes} bytes in memory`);
  assert.ok(away.spool_bytes > away.ledger.held * 100, `${away.spool_bytes} bytes on disk`);
  assert.ok(away.oldest_s > OUTAGE_S - 2, `the oldest is of ${away.oldest_s} s ago`);

  const drain = [await sample()];
  // Drained: no more is held than two seconds bring.
  const isDrained = () => drain.at(-1)!.held <= 2 * ROWS_PER_S;
  const sampling = (async () => {
    while (!isDrained()) {
      await pause(100);
      drain.push(await sample());
    }
  })();
  // A failure is told where it is awaited.
  sampling.catch(() => {});
  await clickhouse.start();
  const backMs = performance.now();
  const freshMs = [await untilVisible(told)];
  const firstFreshMs = performance.now() - backMs;
  while (!isDrained()) freshMs.push(await untilVisible(told));
  await sampling;
  stop.abort();
  await loading;
  await eventually(() => assertDelivered(shishi), { withinMs: 30_000 });
  const watched = await watching.end();
  const rows = await told.assertOnce(clickhouse);
  assert.equal(rows, told.acknowledged.size);
  assert.deepEqual([...told.statuses.keys()], [202]);

  const third = Math.ceil(rss.length / 3);
  const [early, middle, late] = [0, 1, 2].map((part) =>
    median(rss.slice(part * third, (part + 1) * third))
  ) as [number, number, number];
  // It begins to drain a moment after ClickHouse is back, when that is noticed.
  const most = drain.reduce((a, b) => b.held >= a.held ? b : a);
  const goneRows = most.held - drain.at(-1)!.held;
  const tookS = (drain.at(-1)!.atMs - most.atMs) / 1000;
  const logged = (message: string) => shishi.lines().filter((line) => line.message === message);
  const lines = logged("draining the backlog");
  const [drained] = logged("the backlog is drained");
  say(`outage of ${OUTAGE_S} s`, {
    rows,
    "held at its end": away.ledger.held,
    "MiB on disk": Math.round(away.spool_bytes / 1024 / 1024),
    "RSS MiB by thirds": [early, middle, late].map(Math.round).join("/"),
    "most": watched.rssMiB.most,
    "first fresh row visible after ms": Math.round(firstFreshMs),
    "slowest fresh row ms": Math.round(Math.max(...freshMs)),
    "fresh rows tried": freshMs.length,
    "noticed after ms": Math.round(most.atMs - backMs),
    "drained in s": tookS.toFixed(1),
    "backlog rows/s": Math.round(goneRows / tookS),
    "all rows/s": drained?.rows_per_s,
    "lines in the log": lines.length,
  });
  assert.ok(late < early * 1.2 && late > early * 0.8, `${early} MiB, then ${late} MiB resident`);
  assert.ok(Math.max(...freshMs) < patient(FRESH_WITHIN_MS), `${Math.max(...freshMs)} ms`);
  assert.ok(goneRows / tookS >= 3 * ROWS_PER_S, `${goneRows} rows in ${tookS} s`);
  assert.ok(lines.length >= tookS / 5 - 1, `${lines.length} lines`);
  for (const line of lines) {
    assert.ok(
      Number(line.rows_held) > 0 && Number(line.rows_per_s) > 0 && Number(line.oldest_s) > 0,
    );
  }
  assert.ok(Number(drained?.rows) > goneRows * 0.9, JSON.stringify(drained));
});
