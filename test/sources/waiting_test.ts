/**
 * What a source says while it cannot give on what it has read: once for each reason, not at each attempt.
 * Runs once: broker and time are the test's own; each source's test has its connection on both runtimes.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Log } from "../../src/contracts.ts";
import { Source } from "../../src/sources/source.ts";
import { ManualClock } from "../kit/manual_clock.ts";
import { fakeAddress, FakeBroker } from "./fake_broker.ts";
import { Disk, JournalIntake } from "./journal_intake.ts";
import { PlainReader } from "./plain_reader.ts";

/** A source of one queue; `warnings` is what its log has of them. */
function started() {
  const clock = new ManualClock();
  const server = new FakeBroker({ kind: "queue" });
  const intake = new JournalIntake(new Disk(), "disk");
  const reader = new PlainReader();
  const warnings: string[] = [];
  const log: Log = {
    debug() {},
    info() {},
    warn: (message, fields) => void warnings.push(`${message}: ${fields?.["reason"]}`),
    error() {},
  };
  const source = new Source({
    address: fakeAddress({ table: "t" }),
    broker: server.broker(1000),
    intake,
    reader,
    keepLetters: (letters) => intake.keepLetters(letters),
    totals: { messages: 0, empty: 0, dead: 0, repeated: 0, dropped: 0, rows: 0, reconnects: 0 },
    died() {},
    eventsTable: () => "events",
    mayWrite: () => true,
    ack: () => "disk",
    clock,
    log,
  });
  source.start();
  return { clock, intake, reader, server, source, warnings };
}

const WAITS = "a source waits with what it has read";

test("a table that is missing is told once, and again when it is missing again", async () => {
  const { clock, reader, server, source, warnings } = started();
  reader.waits = "there is no table t";
  server.publish(['{"n":1}']);
  await clock.advance(10_000);
  assert.deepEqual(warnings, [`${WAITS}: there is no table t`]);
  reader.waits = null;
  await clock.advance(2_000);
  assert.equal(server.unacknowledged, 0);
  reader.waits = "there is no table t";
  server.publish(['{"n":2}']);
  await clock.advance(10_000);
  assert.deepEqual(warnings, [`${WAITS}: there is no table t`, `${WAITS}: there is no table t`]);
  const stopped = source.stop(Promise.resolve());
  await clock.advance(10_000);
  await stopped;
});

test("no room for dead letters is told; a backlog that is full is not the source's trouble", async () => {
  const { clock, intake, server, source, warnings } = started();
  intake.full = "no room";
  server.publish(["broken"]);
  await clock.advance(10_000);
  assert.deepEqual(warnings, []);
  intake.full = null;
  intake.lettersFull = "no room for letters";
  await clock.advance(10_000);
  assert.deepEqual(warnings, [`${WAITS}: no room for letters`]);
  const stopped = source.stop(Promise.resolve());
  await clock.advance(10_000);
  await stopped;
});
