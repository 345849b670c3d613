/** SIGUSR2 at a bad moment, on a clock of the test: who waits, for how long, and what is said then. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { goodMoment } from "../../src/runtime/handover.ts";
import { ManualClock } from "../kit/manual_clock.ts";
import { remember } from "../remote/kit.ts";

/** @param settledMs and @param stoppedMs when it is so. */
function wait(settledMs: number, stoppedMs = Infinity) {
  const clock = new ManualClock();
  const log = remember();
  const asked: { answer?: string | null } = {};
  const passed = (ms: number) => clock.monotonicMs() - startMs >= ms;
  const startMs = clock.monotonicMs();
  void goodMoment({
    unsettled: () => passed(settledMs) ? null : "the spool is still being read",
    stopping: () => passed(stoppedMs),
    clock,
    log,
  }).then((answer) => asked.answer = answer);
  return { clock, log, asked };
}

test("a good moment is taken at once, and without a word", async () => {
  const { clock, log, asked } = wait(0);
  await clock.advance(0);
  assert.deepEqual([asked, log.lines], [{ answer: null }, []]);
});

test("a bad one is waited out, and the log says once what for", async () => {
  const { clock, log, asked } = wait(29_000);
  await clock.advance(28_900);
  assert.deepEqual(asked, {});
  assert.equal(log.lines.length, 1);
  assert.match(
    log.lines[0]!,
    /^info SIGUSR2: waiting .*the spool is still being read.*"at_most_s":30/,
  );
  await clock.advance(200);
  assert.deepEqual(asked, { answer: null });
});

test("one that does not pass in 30 s is a refusal that says what to do", async () => {
  const { clock, asked } = wait(Infinity);
  await clock.advance(29_900);
  assert.deepEqual(asked, {});
  await clock.advance(200);
  assert.match(
    asked.answer!,
    /^the spool is still being read, for 30 s; send SIGUSR2 again .*, or restart$/,
  );
});

test("a collector that stops is not waited for, even at a good moment", async () => {
  for (const [settledMs, stoppedMs] of [[Infinity, 5_000], [0, 0]] as const) {
    const { clock, asked } = wait(settledMs, stoppedMs);
    await clock.advance(stoppedMs + 100);
    assert.match(asked.answer!, /^this process is stopping; start it again/);
  }
});
