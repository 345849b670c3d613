/**
 * When a service manager is told what: decided without one.
 * Runs once: decided without a service manager; notify_test.ts has its socket on both runtimes.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { State, Status } from "../../src/contracts.ts";
import { createNotices, statusLine } from "../../src/systemd/notify.ts";
import { ManualClock } from "../kit/manual_clock.ts";

function around(watchdogMs: number | null) {
  const clock = new ManualClock();
  const heard: string[] = [];
  const status = statusOf("running", 0);
  const notices = createNotices({
    manager: {
      tell: (state) =>
        heard.push(Object.entries(state).map(([name, value]) => `${name}=${value}`).join(" ")) > 0,
      watchdogMs,
      monotonicUsec: () => 7n,
    },
    status: () => status,
    clock,
    stopMs: () => 90_000,
  });
  return {
    clock,
    notices,
    status,
    /** What was told since the last call. */
    news: () => heard.splice(0),
  };
}

function statusOf(state: State, held: number) {
  const ledger = { received: 0, recovered: 0, rejected: 0, stored: 4, dead: 0, held, lost: 0 };
  return { state, ledger, oldest_s: 2.4, tables: {} } as unknown as
    & { -readonly [Name in keyof Status]: Status[Name] }
    & { ledger: { held: number } };
}

test("the status is told when it has changed, a beat each time where one is wanted", async () => {
  const { clock, notices, status, news } = around(2_000);
  notices.ready();
  assert.deepEqual(news(), ["READY=1", "WATCHDOG=1 STATUS=running: 0 rows held, 4 stored"]);
  await clock.advance(2_000);
  assert.deepEqual(news(), ["WATCHDOG=1"]);
  status.ledger.held = 3;
  await clock.advance(2_000);
  assert.deepEqual(news(), ["WATCHDOG=1 STATUS=running: 3 rows held, oldest 2 s, 4 stored"]);
});

test("without a watchdog nothing is told while nothing changes", async () => {
  const { clock, notices, news } = around(null);
  notices.ready();
  news();
  await clock.advance(60_000);
  assert.deepEqual(news(), []);
});

test("a stop is told at once and once, and goes on asking for time", async () => {
  const { clock, notices, status, news } = around(null);
  notices.ready();
  notices.changed();
  news();
  status.state = "draining";
  notices.changed();
  notices.changed();
  const line = "STATUS=draining: 0 rows held, 4 stored";
  assert.deepEqual(news(), [`STOPPING=1 ${line} EXTEND_TIMEOUT_USEC=90000000`]);
  await clock.advance(5_000);
  assert.deepEqual(news(), ["EXTEND_TIMEOUT_USEC=30000000"]);
});

test("a reload has a beginning with its time, and an end", () => {
  const { notices, news } = around(null);
  notices.reloading();
  notices.reloaded();
  assert.deepEqual(news(), ["RELOADING=1 MONOTONIC_USEC=7", "READY=1"]);
});

test("who is replaced names the other one and falls silent", async () => {
  const { clock, notices, status, news } = around(1_000);
  notices.ready();
  news();
  notices.replacedBy(42);
  assert.deepEqual(news(), ["MAINPID=42"]);
  status.state = "draining";
  notices.changed();
  await clock.advance(10_000);
  assert.deepEqual(news(), []);
});

test("the line of status names what needs somebody", () => {
  const status = {
    ...statusOf("degraded", 5),
    ledger: { ...statusOf("degraded", 5).ledger, dead: 2, lost: 1 },
    tables: { a: { state: "trouble" }, b: { state: "ok" } },
  } as unknown as Status;
  assert.equal(
    statusLine(status),
    "degraded: 5 rows held, oldest 2 s, 4 stored, 2 dead letters, 1 lost, 1 table in trouble",
  );
});
