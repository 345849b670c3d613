/**
 * What the loop of a source decides by time or by setting, on a clock of its own.
 * Runs once: broker and time are the test's own; each source's test has its connection on both runtimes.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Broker, Feed, Log, Message, SourceAddress } from "../../src/contracts.ts";
import { Source } from "../../src/sources/source.ts";
import { createLedger } from "../../src/meter/ledger.ts";
import { ManualClock, settle } from "../kit/manual_clock.ts";
import { fakeAddress, FakeBroker } from "./fake_broker.ts";
import { Disk, JournalIntake } from "./journal_intake.ts";
import { PlainReader } from "./plain_reader.ts";

function start(
  address: Partial<SourceAddress> = {},
  broker?: Broker,
  kind: "log" | "queue" = "log",
) {
  const clock = new ManualClock();
  const server = new FakeBroker({ kind, partitions: 1 });
  const disk = new Disk();
  const intake = new JournalIntake(disk);
  const told: string[] = [];
  const tell = (message: string) => void told.push(message);
  const log: Log = { debug() {}, info: tell, warn: tell, error: tell };
  const died: [string, number][] = [];
  const reader = new PlainReader();
  const source = new Source({
    address: fakeAddress(address),
    broker: broker ?? server.broker(),
    intake,
    reader,
    keepLetters: (letters) => intake.keepLetters(letters),
    totals: createLedger().source("s"),
    died: (table, messages) => died.push([table, messages]),
    eventsTable: () => "events",
    mayWrite: (table) => table === "events" || table === "allowed",
    ack: () => "disk",
    clock,
    log,
  });
  source.start();
  const end = async () => {
    const stopped = source.stop(Promise.resolve());
    await clock.advance(10_000);
    await stopped;
  };
  return { clock, server, disk, intake, reader, source, told, died, end };
}

test("on-error=stop: what is before the poison is acknowledged, and nothing is read behind it", async () => {
  const { clock, server, disk, source, told, died, end } = start({ onError: "stop" });
  server.publish(['{"n":1}', "[]", '{"n":2}', "broken", '{"n":3}']);
  await clock.advance(1000);
  assert.deepEqual(disk.rows, ['{"n":1}', '{"n":2}']);
  assert.deepEqual(server.committed, [3]);
  const { state, why } = source.status();
  assert.equal(state, "stopped");
  assert.equal(why, "fake:0@3: not JSON");
  assert.deepEqual([disk.letters, died], [[], []]);
  assert.equal(server.feeds.length, 0, "it has left the broker");
  assert.equal(told.filter((line) => /has stopped/.test(line)).length, 1);
  await clock.advance(3_600_000);
  assert.equal(server.connections, 1);
  await end();
});

test("full for a minute: the broker has the messages again, until there is room", async () => {
  const { clock, server, disk, intake, source, end } = start();
  await clock.advance(1000);
  intake.full = "no room";
  server.publish(['{"n":1}']);
  await clock.advance(59_000);
  assert.equal(server.feeds.length, 1);
  await clock.advance(3_000);
  assert.equal(server.feeds.length, 0, "it holds them no longer");
  assert.equal(source.status().state, "full");
  await clock.advance(3_600_000);
  assert.equal(server.connections, 1, "it has come back for nothing");
  intake.full = null;
  await clock.advance(1000);
  assert.deepEqual(disk.rows, ['{"n":1}']);
  assert.equal(server.unacknowledged, 0);
  await end();
});

test("a table that takes nothing for long: given back seldom, for queues count that", async () => {
  const { clock, server, disk, reader, source, end } = start();
  reader.waits = "there is no table t";
  server.publish(['{"n":1}']);
  await clock.advance(10_000);
  const { state, why } = source.status();
  assert.deepEqual([state, why], ["waiting", "there is no table t"]);
  await clock.advance(24 * 3_600_000);
  assert.ok(server.connections < 60, `${server.connections} in a day`);
  reader.waits = null;
  await clock.advance(3_700_000);
  assert.deepEqual(disk.rows, ['{"n":1}']);
  await end();
});

test("a broker that says nothing at all is given up, and tried again; its reason is logged once", async () => {
  let asked = 0;
  let aborted = 0;
  const broker: Broker = {
    connect: (signal) => {
      asked++;
      signal.addEventListener("abort", () => aborted++);
      return new Promise<Feed>(() => {});
    },
    inspect: () => Promise.resolve([]),
  };
  const { clock, source, told, end } = start({}, broker);
  await clock.advance(29_000);
  assert.equal(source.status().state, "connecting");
  await clock.advance(200_000);
  assert.ok(asked >= 3, `${asked} attempts`);
  assert.ok(aborted >= asked - 1);
  assert.equal(told.length, 1, told.join());
  await end();
  assert.equal(source.status().state, "stopped");
});

test("a message may name a table that may be written, and no other", async () => {
  const messages = [
    ["allowed", '{"n":1}'],
    ["secret", '{"n":2}'],
    ["events", '{"n":3}'],
    ["t", '{"n":4}'],
    [undefined, '{"n":5}'],
  ].map(([table, body], at): Message => ({
    body: new TextEncoder().encode(body),
    ...(table === undefined ? {} : { table }),
    partition: "p",
    position: String(at),
    address: `fake:p@${at}`,
    meta: () => null,
  }));
  let given = false;
  const acknowledged: string[] = [];
  const feed: Feed = {
    next: () => given ? new Promise(() => {}) : (given = true, Promise.resolve(messages)),
    acknowledge: (newest) => {
      acknowledged.push(...newest.map(({ position }) => position!));
      return Promise.resolve();
    },
    lag: () => null,
    close: () => Promise.resolve(),
  };
  const broker: Broker = {
    connect: () => Promise.resolve(feed),
    inspect: () => Promise.resolve([]),
  };
  const { clock, disk, intake, died, end } = start({}, broker);
  const tables: string[] = [];
  const take = intake.take.bind(intake);
  intake.take = (chunk) => {
    tables.push(`${chunk.table} ${chunk.shape}`);
    return take(chunk);
  };
  await clock.advance(1000);
  assert.deepEqual(tables, ["allowed row", "events event", "t row", "t row"]);
  assert.deepEqual(disk.rows, ['{"n":1}', '{"n":3}', '{"n":4}', '{"n":5}']);
  assert.equal(disk.letters.length, 1);
  assert.match(disk.letters[0]!.error, /^the table secret may not be written/);
  assert.deepEqual(died, [["secret", 1]]);
  assert.equal(acknowledged.at(-1), "4");
  await end();
});

test("what is not yet safe at a stop is left to the broker, and a disk that hangs holds up no stop", async () => {
  const { clock, server, intake, source } = start();
  intake.syncing.shut();
  server.publish(['{"n":1}']);
  await clock.advance(1000);
  let stopped = false;
  void source.stop(Promise.resolve()).then(() => stopped = true);
  await clock.advance(5000);
  await settle();
  assert.ok(stopped);
  assert.equal(server.unacknowledged, 1);
  assert.equal(server.feeds.length, 0);
});

for (const what of ["no room", "a disk that hangs", "given before"]) {
  test(`at a stop, what is certainly not taken may go to others at once: ${what}`, async () => {
    const { clock, server, intake, reader, source, end } = start({}, undefined, "queue");
    const untaken: string[] = [];
    server.onUntaken = ({ body }) => untaken.push(new TextDecoder().decode(body));
    await clock.advance(1000);
    if (what === "a disk that hangs") intake.syncing.shut();
    else if (what === "no room") intake.full = "no room";
    else reader.waits = "there is no table t";
    // Of the poison there is a letter by then.
    server.publish(['{"n":1}', "broken", "[]"]);
    await clock.advance(1000);
    if (what === "given before") {
      server.cut();
      await clock.advance(200_000);
    }
    assert.equal(source.status().unacked, 3);
    await end();
    assert.equal(server.unacknowledged, 3);
    assert.deepEqual(untaken, what === "no room" ? ['{"n":1}', "[]"] : []);
  });
}
