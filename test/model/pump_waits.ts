/** Those who wait for the pump: requests, flushes, and the end of it all. */

import assert from "node:assert/strict";
import type { Ticket } from "../../src/contracts.ts";
import { ASKED_MS, type Run } from "./pump_model.ts";
import { checkStep } from "./pump_promises.ts";

/** The longest backoff there is. */
const BACKOFF_MS = 30_000;

/** A ticket tells the truth, and in time. */
export function followTicket(run: Run, ticket: Ticket, request: number, waitMs: number): void {
  const untilMs = run.clock.monotonicMs() + waitMs;
  run.waiting++;
  ticket.settled(waitMs).then((settled) => {
    run.waiting--;
    const mine = run.rows.filter((row) => row.request === request);
    if (settled === null) {
      const lost = mine.some((row) => row.fate === "lost");
      assert.ok(lost || run.clock.monotonicMs() >= untilMs, "null before the time was over");
      return;
    }
    assert.ok(mine.every((row) => row.fate === "stored" || row.fate === "dead"));
    assert.equal(settled.dead, mine.filter((row) => row.fate === "dead").length);
  }).catch((problem) => run.problem ??= problem);
}

/** A flush tells the truth, and in time. */
export function followFlush(run: Run, waitMs: number): void {
  const mine = run.heldRows;
  const untilMs = run.clock.monotonicMs() + waitMs;
  run.waiting++;
  run.pump.flush(waitMs).then((flushed) => {
    run.waiting--;
    const open = mine.filter((row) => row.fate === "held" || row.fate === "lost").length;
    if (flushed) assert.equal(open, 0, "flushed, but rows are still held");
    else assert.ok(open > 0 && (run.abandoned || run.clock.monotonicMs() >= untilMs));
  }).catch((problem) => run.problem ??= problem);
}

/** The sink stores whatever comes from here on: everything must go, in bounded time, and the timers. */
export async function finish(run: Run): Promise<void> {
  await run.obey({ do: "answerAll", with: "stored", more: 0 });
  for (const attempt of run.sink.inFlight) {
    queueMicrotask(() => run.answer(attempt, "stored", 0));
  }
  run.sink.script = (attempt) => {
    run.handed(attempt);
    queueMicrotask(() => run.answer(attempt, "stored", 0));
    return "hold";
  };
  const boundMs = (run.closed ? 0 : ASKED_MS) + BACKOFF_MS + run.config.flushIntervalMs + 1000;
  const drained = run.pump.drained(boundMs);
  await run.clock.advance(boundMs);
  checkStep(run);
  assert.equal(
    run.pump.rows(),
    0,
    `rows are held after ${boundMs} ms with a sink that stores all`,
  );
  assert.equal(await drained, true);
  assert.equal(run.rows.filter((row) => row.fate === "held").length, 0);
  const dead = run.rows.filter((row) => row.fate === "dead").map((row) => row.n);
  const buried = run.buried.map((row) => JSON.parse(row).n as number);
  assert.deepEqual(buried.sort((a, b) => a - b), dead, "each dead row is buried once");
  await run.clock.advance(400_000);
  assert.equal(run.waiting, 0, "somebody waits for ever");
  assert.equal(run.clock.pending, 0, "a timer was left behind");
  if (run.problem !== null) throw run.problem;
}
