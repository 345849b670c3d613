/** What a pump with a disk promises, checked against the model's books. */

import assert from "node:assert/strict";
import type { Chunk, Ticket } from "../../src/contracts.ts";
import { balance } from "../../src/meter/ledger.ts";
import { settle } from "../kit/manual_clock.ts";
import { deadOn, inSpool } from "./disk_life.ts";
import { checkSteps } from "./steps.ts";
import type { Run } from "./disk_model.ts";
import type { Request, Row } from "./disk_rows.ts";

/** A frame around the rows of each round, one row at least; more than the seal behind a segment's. */
const FRAME_BYTES = 400;
/** A key's line, and a frame around it. */
const KEY_BYTES = 400;

/** Whether a chunk may be refused: all that could be a reason is looked at from outside. */
export function checkTaken(run: Run, request: Request, chunk: Chunk): boolean {
  const { pump } = run.life.parts;
  const { backlog, backlogBytes, maxSpoolBytes } = run.config;
  const open = run.requests.filter((other) =>
    other.state === "open" && other.life === run.lives && other !== request
  ).concat(request).flatMap(({ rows }) => rows);
  const openBytes = open.reduce((sum, { bytes }) => sum + bytes, 0);
  // What came before a start under which key is known once it is read.
  if (chunk.key !== undefined && !run.life.recovered) return true;
  return pump.closed() !== null || pump.troubles().disk !== null ||
    pump.rows() + open.length > backlog ||
    pump.memoryBytes() + chunk.body.length > backlogBytes ||
    run.disk && pump.spoolBytes() + openBytes + chunk.body.length > maxSpoolBytes;
}

/** What is called a duplicate was taken, or is known to be under way. */
export function checkDuplicate(
  run: Run,
  before: Request,
  { accepted, rejected }: { readonly accepted: number; readonly rejected: number },
): void {
  run.duplicates++;
  assert.deepEqual([accepted, rejected], [before.rows.length, 0]);
  // A crash may bring back what was refused, where the disk did not even take that it was.
  const back = run.undoFailed && before.life !== run.lives;
  assert.ok(before.state !== "refused" || back, "a duplicate of what was refused");
}

/** A ticket tells the truth, and in time. */
export function followTicket(run: Run, ticket: Ticket, request: Request, waitMs: number): void {
  const { life } = run;
  const untilMs = life.parts.clock.monotonicMs() + waitMs;
  run.waiting++;
  ticket.settled(waitMs).then((settled) => {
    if (life.crashed) return;
    run.waiting--;
    if (settled === null) {
      const over = life.parts.clock.monotonicMs() >= untilMs;
      assert.ok(life.abandoned || over, "null before the time was over");
      return;
    }
    const dead = new Set(deadOn(run.files));
    for (const row of request.rows) assert.ok(arrived(run, row, dead), "settled, but not there");
    assert.equal(settled.dead, request.rows.filter(({ bad }) => bad).length);
  }).catch((problem) => run.problem ??= problem);
}

/** What must be true after every step. */
export function checkStep(run: Run): void {
  const { life, config } = run;
  checkSteps();
  life.parts.sink.checkRead();
  if (run.problem !== null) throw run.problem;
  const { pump, ledger, sink, gate } = life.parts;
  const totals = ledger.totals();
  assert.equal(balance(totals), 0, "the books do not balance");
  for (const [name, rows] of Object.entries(totals)) assert.ok(rows >= 0, `${name} is ${rows}`);
  assert.equal(totals.held, pump.rows(), "held in the books, and measured");
  const byTable = [...pump.byTable().values()].reduce((sum, rows) => sum + rows, 0);
  assert.equal(byTable, pump.rows(), "held by table");
  assert.equal(totals.lost, 0);
  const mine = run.requests.filter((request) => request.life === run.lives);
  const rowsOf = (state: Request["state"], cut = false) =>
    mine.filter((request) => request.state === state && (!cut || request.cut))
      .reduce((sum, { rows }) => sum + rows.length, 0);
  const kept = rowsOf("kept");
  const doubtful = rowsOf("open", true) + rowsOf("refused", true);
  assert.ok(totals.received >= kept, `${totals.received} received, ${kept} acknowledged`);
  assert.ok(
    totals.received <= kept + doubtful,
    `${totals.received} received, ${kept} acknowledged`,
  );
  let good = 0;
  let bad = 0;
  for (const told of sink.told.values()) {
    good += told.good;
    bad += told.bad;
  }
  assert.ok(totals.stored <= good && totals.dead <= bad);
  assert.ok(sink.inFlight.length <= config.concurrency);
  assert.ok(pump.rows() <= config.backlog + life.foundRows);
  const idle = gate.waiting === 0 && !gate.shut;
  if (idle && gate.failures === 0) {
    assert.deepEqual([totals.stored, totals.dead], [good, bad], "fates told, and counted");
    if (life.recovered) assert.equal(totals.recovered, life.foundRows, "rows recovered");
  }
  if (life.calm && !life.faulty && sink.inFlight.length === 0) {
    const mostMs = Math.max(1, config.flushIntervalMs);
    assert.ok(pump.oldestMs() <= mostMs, `${pump.oldestMs()} ms old, nothing in flight`);
  }
  // A batch that is sent is in memory; so is one that is larger than it may be.
  const largest = run.requests.reduce((most, { whole, rows }) => {
    const sizes = rows.map(({ bytes }) => bytes);
    const all = whole ? sizes.reduce((sum, bytes) => sum + bytes, 0) : 0;
    return Math.max(most, all, ...sizes);
  }, config.maxBytes);
  const most = config.backlogBytes + (idle ? config.concurrency * largest : Infinity);
  assert.ok(pump.memoryBytes() >= 0 && pump.memoryBytes() <= most, `${pump.memoryBytes()} bytes`);
  assert.ok(pump.spoolBytes() >= 0, `${pump.spoolBytes()} bytes on disk`);
  const limit = config.maxSpoolBytes + life.foundBytes;
  assert.ok(pump.spoolBytes() <= limit + FRAME_BYTES * run.rows.length);
  if (idle && gate.failures === 0 && life.recovered && life.foundRows === 0) {
    assert.equal(pump.spoolBytes(), inSpool(run.files).bytes, "bytes in the spool");
  }
}

/** At the moment after a crash, before the next process: what was acknowledged is on disk. */
export function checkCrash(run: Run): void {
  if (run.problem !== null) throw run.problem;
  const missing = missingRows(run);
  if (run.disk) assert.deepEqual(missing.map(({ n }) => n), [], "acknowledged and gone");
  for (const row of missing) run.gone.add(row);
}

/** After a stop or a second signal. `spilled`: there was time to write what was in memory only. */
export function checkEnd(run: Run, hasRecovered: boolean, spilled: boolean): void {
  if (run.problem !== null) throw run.problem;
  const { life } = run;
  const { ledger, pump, gate, clock } = life.parts;
  const totals = ledger.totals();
  assert.equal(balance(totals), 0, "the books do not balance at the end");
  assert.equal(totals.held, pump.rows());
  for (const request of run.requests) {
    assert.notEqual(request.state, "open", "a request was never answered");
  }
  const missing = missingRows(run);
  assert.ok(missing.length <= totals.lost, `${missing.length} missing, ${totals.lost} lost`);
  const clean = !life.faulty && gate.failures === 0;
  if (run.disk || clean && spilled) assert.equal(totals.lost, 0, "lost with a disk");
  for (const row of missing) run.gone.add(row);
  if (clean && hasRecovered) {
    assert.equal(inSpool(run.files).rows.length, totals.held, "held, and on disk");
  }
  assert.deepEqual([...gate.handles], [], "files left open");
  assert.equal(run.waiting, 0, "somebody waits for ever");
  assert.equal(clock.pending, 0, "a timer was left behind");
}

/** Everything flows again: every row must have come where it belongs, once. */
export async function finish(run: Run): Promise<void> {
  run.heal();
  run.files.crashAt(Infinity);
  const { life } = run;
  const { pump, sink, gate, clock, ledger } = life.parts;
  gate.open();
  await settle();
  for (let round = 0; round < 40 && (pump.rows() > 0 || !life.recovered); round++) {
    void pump.probeDisk();
    await clock.advance(10_000);
    while (sink.inFlight.length > 0) {
      for (const sent of sink.inFlight) run.answer(sent, "stored");
      await settle();
    }
    checkStep(run);
  }
  void pump.probeDisk();
  await settle();
  assert.equal(pump.rows(), 0, "rows are held although everything flows");
  assert.equal(pump.troubles().disk, null, "the disk is well");
  assert.equal(pump.memoryBytes(), 0, "bytes in memory, but no rows");
  assert.equal(pump.spoolBytes(), 0, "bytes on disk, but no rows");
  assert.equal(ledger.totals().held, 0);
  const before = ledger.totals();
  await run.obey({ do: "stop", timeoutMs: 0, with: null, releases: [], midway: null, landed: 0 });
  assert.equal(before.lost, 0);
  const { paths } = inSpool(run.files);
  assert.ok(paths.length <= filesOfKeys(run), `files left in the spool: ${paths.join()}`);
  assert.equal(run.life.parts.ledger.totals().recovered, 0);
  const dead = new Set(deadOn(run.files));
  for (const row of run.rows) {
    const { state, cut, time, whole, key } = row.request;
    const copies = run.clickhouse.copies.get(row.n) ?? 0;
    const there = copies > 0 || dead.has(row.n);
    // What was refused may have come back, beside what was taken later; and what memory had, of which no
    // later process knows what its messages were.
    const again = run.undoFailed || !run.disk && whole && key === null;
    const most = row.bad ? 0 : again ? time : 1;
    assert.ok(copies <= most, `row ${row.n} is stored ${copies} times`);
    assert.ok(!dead.has(row.n) || row.bad, `row ${row.n} is good and dead`);
    if (state === "kept" && !run.gone.has(row)) assert.ok(there, `row ${row.n} is missing`);
    if (state === "refused" && !cut && !(again && time > 1) && !run.undoFailed) {
      assert.ok(!there, `row ${row.n} was refused and is there`);
    }
  }
}

/** As many journal files as keys may need that are remembered; each may stand in a frame of its own. */
function filesOfKeys({ disk, requests, config }: Run): number {
  const messages = requests.filter(({ key, whole }) => whole && key === null).length;
  const keyed = new Set(requests.flatMap(({ key }) => key ?? [])).size + messages;
  const inOne = Math.max(1, Math.floor(config.journalFileBytes / KEY_BYTES));
  return disk && keyed > 0 ? 2 + Math.ceil(keyed / inOne) : 0;
}

/** Acknowledged rows that are nowhere. */
function missingRows(run: Run): Row[] {
  const dead = new Set(deadOn(run.files));
  const spooled = new Set(inSpool(run.files).rows);
  return run.rows.filter((row) =>
    row.request.state === "kept" && !run.gone.has(row) && !spooled.has(row.n) &&
    !arrived(run, row, dead)
  );
}

function arrived(run: Run, row: Row, dead: ReadonlySet<number>): boolean {
  return row.bad ? dead.has(row.n) : run.clickhouse.copies.has(row.n);
}
