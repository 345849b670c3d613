/** What the pump promises, checked against the model's books. */

import assert from "node:assert/strict";
import { balance } from "../../src/meter/ledger.ts";
import type { Attempt } from "../kit/scripted_sink.ts";
import type { Row, Run } from "./pump_model.ts";
import { checkSteps } from "./steps.ts";

/** What must be true of every attempt at the moment it goes out. */
export function checkAttempt(run: Run, { batch, text, startedMs }: Attempt): void {
  const { concurrency } = run.config;
  const { maxRows, maxBytes } = run.most;
  const under = run.sink.inFlight;
  assert.equal(run.abandoned, false, "sent after it was given up");
  assert.ok(under.length <= concurrency, `${under.length} in flight`);
  if (run.silences > 0 && !(run.silences === 1 && run.excused)) {
    assert.equal(under.length, 1, `${under.length} in flight while the server is down`);
  }
  assert.equal(
    under.filter((other) => other.batch.id === batch.id).length,
    1,
    "sent twice at once",
  );
  assert.ok(startedMs >= run.serverNotBeforeMs, "Retry-After of the server was not obeyed");
  assert.ok(
    startedMs >= (run.tableNotBeforeMs.get(batch.table) ?? 0),
    "Retry-After of the table was not obeyed",
  );

  const isUnknown = run.batches.get(batch.id)?.unknown === true;
  for (const [id, { unknown, table }] of run.batches) {
    const passed = unknown && table === batch.table && id !== batch.id;
    assert.ok(!passed || isUnknown, "passes one that may be stored");
  }

  const known = run.batches.get(batch.id);
  if (known !== undefined) {
    assert.equal(text, known.text, "another body under the same id");
    assert.ok(startedMs >= known.notBeforeMs, "sent again without a backoff");
    assert.ok(known.rows.every((n) => run.rows[n]!.fate === "held"), "settled rows sent again");
    return;
  }
  assert.match(batch.id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.ok(text.endsWith("\n"));
  const lines = text.slice(0, -1).split("\n").map((line) => JSON.parse(line));
  const rows: number[] = lines.map((line) => line.n);
  assert.equal(batch.rows, lines.length);
  assert.equal(batch.bytes, new TextEncoder().encode(text).length);
  assert.ok(batch.rows <= maxRows && (batch.bytes <= maxBytes || batch.rows === 1));
  assert.ok(rows.every((n, i) => i === 0 || rows[i - 1]! < n), "rows changed places");
  for (const line of lines) {
    assert.equal(line.kind, `${batch.table} ${batch.shape} ${batch.fingerprint}`);
  }
  const types = new Map<string, number>();
  if (batch.shape === "event") {
    for (const { eventType } of lines) types.set(eventType, (types.get(eventType) ?? 0) + 1);
  }
  assert.deepEqual(
    Object.fromEntries([...batch.types].sort()),
    Object.fromEntries([...types].sort()),
  );
  assert.equal(batch.oldestMs, run.clock.startMs + run.rows[rows[0]!]!.takenMs);
  for (const other of run.batches.values()) {
    assert.ok(!other.rows.some((n) => rows.includes(n)), "a row is in two batches");
  }
  run.batches.set(batch.id, {
    ...{ text, rows, table: batch.table },
    ...{ notBeforeMs: 0, silent: false, unknown: false },
  });
}

/** What must be true after every step. */
export function checkStep(run: Run): void {
  checkSteps();
  if (run.problem !== null) throw run.problem;
  const { pump, ledger, config, most } = run;
  const held = run.heldRows;
  const totals = ledger.totals();
  const fates = (fate: Row["fate"]) => run.rows.filter((row) => row.fate === fate).length;
  assert.equal(balance(totals), 0, "the books do not balance");
  assert.deepEqual(
    [totals.received, totals.held, totals.stored, totals.dead, totals.lost],
    [run.rows.length, held.length, fates("stored"), fates("dead"), fates("lost")],
  );
  assert.equal(pump.rows(), held.length);
  const byTable = [...pump.byTable()].filter(([, rows]) => rows > 0);
  for (const [table, rows] of byTable) {
    assert.equal(rows, held.filter((row) => row.table === table).length);
  }
  assert.equal(byTable.reduce((sum, [, rows]) => sum + rows, 0), held.length);
  assert.equal(pump.memoryBytes(), held.reduce((sum, row) => sum + row.bytes, 0));
  assert.ok(pump.rows() <= most.backlog && pump.memoryBytes() <= most.backlogBytes);

  const nowMs = run.clock.monotonicMs();
  const oldestMs = held.length === 0 ? 0 : nowMs - Math.min(...held.map((row) => row.takenMs));
  // A batch is as old as its oldest row, dead or alive: rows leave with their batch.
  assert.equal(pump.oldestMs(), oldestMs);
  if (run.calm && run.sink.inFlight.length === 0) {
    assert.ok(
      oldestMs <= Math.max(1, config.flushIntervalMs),
      `${oldestMs} ms old, nothing in flight`,
    );
  }
}
