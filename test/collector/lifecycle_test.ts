/**
 * The life of a collector: which phase follows which, and what an order does that comes at another time.
 * Runs once: the order of phases is a table; stopping_test.ts has them as a process on both runtimes.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Order, State } from "../../src/contracts.ts";
import { type HeldRows, Lifecycle } from "../../src/lifecycle.ts";
import { createLedger } from "../../src/meter/ledger.ts";
import { ManualClock } from "../kit/manual_clock.ts";
import { remember } from "../remote/kit.ts";

/** What was asked of the rows, and a lifecycle around them. */
function around(held: Partial<HeldRows> = {}, drainDelayMs = 0) {
  const asked: string[] = [];
  const did = (what: string) => () => void asked.push(what);
  const pump: HeldRows = {
    rows: () => 0,
    memoryBytes: () => 0,
    spoolBytes: () => 0,
    oldestMs: () => 0,
    byTable: () => new Map(),
    pause: did("pause"),
    resume: did("resume"),
    close: did("close"),
    abandon: did("abandon"),
    serverIsBack: () => {},
    probeDisk: () => Promise.resolve(),
    flush: () => Promise.resolve(true),
    drained: () => Promise.resolve(true),
    spill: () => Promise.resolve(did("spill")()),
    troubles: () => ({ server: null, disk: null, tables: new Map() }),
    ...held,
  };
  const clock = new ManualClock();
  const log = remember();
  let pings = 0;
  const life = new Lifecycle({
    group: "g",
    id: "i",
    version: "1",
    runtime: "r",
    limits: () => ({
      clickhouse: "h",
      flushIntervalMs: 1_000,
      shutdownTimeoutMs: 10_000,
      drainDelayMs,
    }),
    pump,
    ledger: createLedger(),
    clock,
    log,
    recovering: () => false,
    ping: () => Promise.resolve(++pings > 0),
  });
  const orders: (Order | undefined)[] = [];
  life.watch((order) => orders.push(order));
  const state = (): State => life.status().state;
  return { life, asked, orders, clock, log, state, pings: () => pings };
}

test("running, paused, running, draining, stopped", async () => {
  const { life, asked, orders, state } = around();
  life.started();
  assert.equal(state(), "running");
  life.pause();
  assert.deepEqual([state(), life.unready().includes("paused")], ["paused", true]);
  life.resume();
  assert.equal(state(), "running");
  const stopped = life.stop("SIGTERM");
  assert.deepEqual([state(), life.unready()[0]], ["draining", "draining"]);
  await life.drained;
  assert.equal(state(), "draining");
  life.ended();
  await stopped;
  assert.equal(state(), "stopped");
  assert.deepEqual(asked, ["pause", "resume", "close", "abandon"]);
  assert.deepEqual(orders, ["pause", "resume", "stop", undefined]);
});

test("an order that comes at another time changes nothing, and those that watch hear of it all the same", async () => {
  const { life, asked, orders, state, log } = around();
  life.started();
  life.resume();
  life.pause();
  life.pause();
  life.started();
  assert.equal(state(), "paused");
  void life.stop("once");
  void life.stop("twice");
  life.pause();
  life.resume();
  await life.drained;
  life.ended();
  life.pause();
  life.resume();
  assert.equal(state(), "stopped");
  assert.deepEqual(asked, ["pause", "close", "abandon"]);
  assert.deepEqual(orders.filter((order) => order !== undefined), [
    ...["resume", "pause", "pause", "stop", "stop", "pause", "resume", "pause", "resume"],
  ]);
  assert.equal(log.lines.filter((line) => /draining/.test(line)).length, 1);
});

test("with a drain delay rows are taken until it is over, though it is not ready at once", async () => {
  const { life, asked, clock, state, log } = around({}, 5_000);
  life.started();
  assert.equal(life.hurry(), false);
  void life.stop("SIGTERM");
  void life.stop("SIGTERM");
  life.pause();
  assert.deepEqual([state(), life.unready()[0]], ["draining", "draining"]);
  await clock.advance(4_999);
  assert.deepEqual(asked, []);
  await clock.advance(1);
  await life.drained;
  assert.deepEqual(asked, ["close", "abandon"]);
  assert.equal(life.hurry(), false);
  life.ended();
  assert.equal(state(), "stopped");
  assert.equal(log.lines.filter((line) => /not ready any more/.test(line)).length, 1);
});

test("the delay can be cut short; what is paused takes nothing and has none", async () => {
  const running = around({}, 5_000);
  running.life.started();
  void running.life.stop("SIGTERM");
  assert.equal(running.life.hurry(), true);
  await running.life.drained;
  await running.clock.advance(10_000);
  assert.deepEqual(running.asked, ["close", "abandon"]);

  const paused = around({}, 5_000);
  paused.life.started();
  paused.life.pause();
  void paused.life.stop("SIGTERM");
  await paused.life.drained;
  assert.deepEqual(paused.asked, ["pause", "close", "abandon"]);
});

test("one that follows a paused collector is paused before it listens, and stays so", () => {
  const { life, state } = around();
  life.pause();
  life.started();
  assert.equal(state(), "paused");
  life.resume();
  assert.equal(state(), "running");
});

test("what cannot be delivered in time goes to disk; a disk that hangs is waited for 5 s", async () => {
  const { life, asked, clock } = around({
    drained: () => Promise.resolve(false),
    spill: () => new Promise(() => {}),
  });
  life.started();
  void life.stop("SIGTERM");
  await clock.advance(4_999);
  assert.deepEqual(asked, ["close"]);
  await clock.advance(1);
  await life.drained;
  assert.deepEqual(asked, ["close", "abandon"]);
});

test("the server is asked every 2 s whether it is there, until the stop", async () => {
  const { life, clock, pings } = around();
  life.started();
  await clock.advance(0);
  assert.equal(pings(), 1);
  await clock.advance(2_000);
  assert.equal(pings(), 2);
  void life.stop("SIGTERM");
  await life.drained;
  life.ended();
  await clock.advance(10_000);
  assert.equal(pings(), 2);
});
