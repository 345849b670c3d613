/** Several servers as one: who is asked, who is passed over, and how one comes back. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Select, Verdict } from "../../src/contracts.ts";
import { createFailover, type Failover } from "../../src/deliver/failover.ts";
import { type Misbehaviour, startFakeClickHouse } from "../kit/fake_clickhouse.ts";
import { freePort } from "../kit/free_port.ts";
import { deliverTo, fakeClock, never, silent } from "./kit.ts";

const request = {
  table: "t",
  shape: "row" as const,
  body: [new TextEncoder().encode('{"a":1}\n')],
  rows: 1,
  token: "tok",
};

const lost: Verdict = { kind: "transient", code: 0, message: "connection refused" };
const stored: Verdict = { kind: "stored" };

/** The latest that chance allows. */
const LATEST = 1 - 2 ** -53;

/** Two servers whose answers are set by the test. */
function twoServers(random = 0) {
  const clock = fakeClock(() => random);
  const answers: Record<string, Verdict> = { a: stored, b: stored };
  const pongs: Record<string, boolean> = { a: true, b: true };
  const asked: string[] = [];
  const pinged: string[] = [];
  const node = (label: string) => ({
    label,
    inserter: {
      insert() {
        asked.push(label);
        return Promise.resolve(answers[label] as Verdict);
      },
      sieve: () => Promise.resolve(null),
    },
    query: {
      rows: () => Promise.resolve({ ok: true as const, value: [] }),
      word: () => Promise.resolve({ ok: true as const, value: "1" }),
      command: () => Promise.resolve({ ok: true as const, value: null }),
      ping() {
        pinged.push(label);
        return Promise.resolve(pongs[label] as boolean);
      },
    },
    ask() {
      asked.push(label);
      const trouble = answers[label] as Verdict;
      return Promise.resolve(
        trouble.kind === "stored"
          ? { ok: true as const, value: "" }
          : { ok: false as const, code: trouble.code, problem: trouble.message },
      );
    },
  });
  const failover: Failover = createFailover({ nodes: [node("a"), node("b")], clock, log: silent });
  /** Asks once; the answer and who was asked for it. */
  async function insert(signal = never, table = request.table): Promise<[string, string]> {
    asked.length = 0;
    const verdict = await failover.inserter.insert({ ...request, table }, signal);
    return [verdict.kind, asked.join("")];
  }
  async function advance(ms: number): Promise<number> {
    pinged.length = 0;
    clock.advance(ms);
    for (let turn = 0; turn < 5; turn++) await Promise.resolve();
    return pinged.length;
  }
  /** Asks a question; whether it was answered, and which servers were asked. */
  async function ask(): Promise<[boolean, string]> {
    asked.length = 0;
    return [(await failover.ask(select, never)).ok, asked.join("")];
  }
  return { clock, answers, pongs, insert, ask, advance, failover };
}

const select: Select = { sql: "SELECT 1", format: "JSON", params: {}, settings: {} };

describe("failover", () => {
  test("the first server is asked while it answers, whatever ClickHouse says of the rows", async () => {
    const { answers, insert, clock, failover } = twoServers();
    const kinds: Verdict[] = [
      stored,
      { kind: "transient", code: 241, message: "Query memory limit exceeded" },
      { kind: "transient", code: 319, message: "unknown status of the INSERT" },
      { kind: "table", code: 16, message: "no such column" },
      { kind: "table", code: 243, message: "no space: while pushing to view db.v" },
      { kind: "row", code: 27, message: "bad", row: 1 },
      { kind: "split", code: 252, message: "Too many partitions" },
    ];
    for (const verdict of kinds) {
      answers["a"] = verdict;
      assert.deepEqual(await insert(), [verdict.kind, "a"]);
    }
    assert.equal(clock.pending(), 0);
    failover.close();
  });

  test("one that cannot be reached is passed over in the same call and until it answers a ping", async () => {
    const { answers, pongs, insert, advance, failover } = twoServers();
    answers["a"] = lost;
    pongs["a"] = false;
    assert.deepEqual(await insert(), ["stored", "ab"]);
    assert.deepEqual(await insert(), ["stored", "b"]);
    assert.equal(await advance(250), 1);
    assert.deepEqual(await insert(), ["stored", "b"]);
    pongs["a"] = true;
    answers["a"] = stored;
    assert.equal(await advance(249), 0);
    assert.equal(await advance(1), 1);
    assert.deepEqual(await insert(), ["stored", "a"]);
    failover.close();
  });

  const ofServer: [number, string][] = [
    [242, "Table is in readonly mode (replica_path=/r)"],
    [243, "Cannot reserve 1.00 MiB, not enough space"],
    [241, "(total) memory limit exceeded: would use 10.00 GiB"],
    [202, "Too many simultaneous queries. Maximum: 100"],
    [516, "default: Authentication failed"],
    [225, "no Keeper"],
  ];
  for (const [code, message] of ofServer) {
    test(`${code} speaks of the server: the next one takes all rows until it is back`, async () => {
      const { answers, pongs, insert, ask, advance, failover } = twoServers();
      answers["a"] = { kind: code === 242 || code === 516 ? "table" : "transient", code, message };
      pongs["a"] = false;
      assert.deepEqual(await ask(), [true, "ab"]);
      assert.deepEqual(await insert(), ["stored", "ab"]);
      assert.deepEqual(await insert(), ["stored", "b"]);
      answers["a"] = stored;
      pongs["a"] = true;
      await advance(60_000);
      assert.deepEqual(await insert(), ["stored", "a"]);
      failover.close();
    });
  }

  const ofTable: [number, string][] = [
    [60, "Table db.t does not exist"],
    [81, "Database db does not exist"],
    [252, "Too many parts (3000 with average size of 1 KiB)"],
    [497, "Not enough privileges"],
  ];
  for (const [code, message] of ofTable) {
    test(`${code} speaks of a table there: that one goes to the next server, others do not`, async () => {
      const { answers, insert, advance, failover } = twoServers();
      answers["a"] = { kind: code === 252 ? "transient" : "table", code, message };
      assert.deepEqual(await insert(), ["stored", "ab"]);
      assert.deepEqual(await insert(), ["stored", "b"]);
      answers["a"] = stored;
      assert.deepEqual(await insert(never, "other"), ["stored", "a"]);
      assert.deepEqual(await insert(), ["stored", "b"]);
      await advance(60_000);
      assert.deepEqual(await insert(), ["stored", "a"]);
      // Nobody takes it: what the first says counts, and both are asked again.
      answers["a"] = answers["b"] = { kind: "table", code, message };
      assert.deepEqual(await insert(), ["table", "ab"]);
      answers["b"] = lost;
      await advance(60_000);
      assert.deepEqual(await insert(), ["table", "ab"]);
      failover.close();
    });
  }

  test("a question goes by the health that is known and changes none", async () => {
    const { answers, pongs, insert, ask, failover } = twoServers();
    answers["a"] = { kind: "transient", code: 241, message: "Memory limit" };
    assert.deepEqual(await ask(), [false, "a"]);
    answers["a"] = lost;
    assert.deepEqual(await ask(), [true, "ab"]);
    assert.deepEqual(await ask(), [true, "ab"]);
    pongs["a"] = false;
    assert.deepEqual(await insert(), ["stored", "ab"]);
    assert.deepEqual(await ask(), [true, "b"]);
    answers["b"] = lost;
    assert.deepEqual(await ask(), [false, "b"]);
    failover.close();
  });

  test("all unhealthy: all are tried, in order, and one that works is healthy again", async () => {
    const { answers, pongs, insert, failover } = twoServers();
    answers["a"] = answers["b"] = lost;
    pongs["a"] = pongs["b"] = false;
    assert.deepEqual(await insert(), ["transient", "ab"]);
    assert.deepEqual(await insert(), ["transient", "ab"]);
    answers["b"] = stored;
    assert.deepEqual(await insert(), ["stored", "ab"]);
    assert.deepEqual(await insert(), ["stored", "b"]);
    failover.close();
  });

  test("pings get rarer up to 30 s, and end with close", async () => {
    const { answers, pongs, insert, advance, clock, failover } = twoServers(LATEST);
    answers["a"] = lost;
    pongs["a"] = false;
    await insert();
    for (const pauseMs of [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]) {
      assert.equal(await advance(pauseMs - 1), 0);
      assert.equal(await advance(1), 1);
    }
    failover.close();
    assert.equal(clock.pending(), 0);
  });

  test("the collectors of a fleet do not ping in step", async () => {
    const FLEET = 200;
    const fleet = Array.from({ length: FLEET }, (_, at) => twoServers(at / FLEET));
    for (const { answers, pongs, insert } of fleet) {
      answers["a"] = lost;
      pongs["a"] = false;
      await insert();
    }
    // The n-th ping of a host comes within 250 ms to 250 ms * 2^n after the one before it.
    for (const latestMs of [500, 1000, 2000]) {
      const waitsMs = await Promise.all(fleet.map(async ({ advance }) => {
        let ms = 0;
        do ms += 5; while (await advance(5) === 0);
        return ms;
      }));
      assert.ok(waitsMs.every((ms) => ms >= 250 && ms <= latestMs), String(waitsMs));
      const inAMoment = new Map<number, number>();
      for (const ms of waitsMs) {
        const moment = Math.floor(ms / 50);
        inAMoment.set(moment, (inAMoment.get(moment) ?? 0) + 1);
      }
      // Spread evenly, a fifth of the hosts at most would fall into 50 of 250 ms.
      const most = Math.max(...inAMoment.values());
      assert.ok(most <= FLEET / 4, `${most} of ${FLEET} within 50 ms`);
    }
    for (const { failover } of fleet) failover.close();
  });

  test("an attempt that we gave up says nothing about the server", async () => {
    const { answers, insert, clock, failover } = twoServers();
    answers["a"] = lost;
    const abort = new AbortController();
    abort.abort();
    assert.deepEqual(await insert(abort.signal), ["transient", "a"]);
    assert.equal(clock.pending(), 0);
    failover.close();
  });

  const failures: [string, Misbehaviour][] = [
    ["hangs", { kind: "hang" }],
    ["breaks the connection", { kind: "reset" }],
    ["gives half an answer", { kind: "half", then: "hang" }],
    ["redirects", { kind: "answer", status: 302, headers: { Location: "http://example.com/" } }],
    ["is a proxy without a server", { kind: "answer", status: 502, body: "<html>" }],
    ["is something else", { kind: "answer", status: 200, body: "<html>It works</html>" }],
    ["answers 200 and is no ClickHouse", { kind: "answer", status: 200 }],
  ];
  for (const [name, misbehaviour] of failures) {
    test(`over HTTP: the first ${name}, the second stores`, async () => {
      const [first, second] = [await startFakeClickHouse(), await startFakeClickHouse()];
      for (const server of [first, second]) server.createTable("t", { a: "UInt32" });
      first.misbehave(misbehaviour);
      const deliver = deliverTo([first.url, second.url], { insertTimeoutMs: 300 });
      assert.deepEqual(await deliver.inserter.insert(request, never), stored);
      assert.equal(second.rows("t").length, 1);
      await deliver.close();
      await first.close();
      await second.close();
    });
  }

  test("over HTTP: a table that one replica lacks is found on the next, and written there", async () => {
    const [first, second] = [await startFakeClickHouse(), await startFakeClickHouse()];
    second.createTable("t", { a: "UInt32" });
    const deliver = deliverTo([first.url, second.url]);
    assert.ok(typeof await deliver.tables.refresh("t") === "object");
    assert.deepEqual(await deliver.inserter.insert(request, never), stored);
    assert.equal(second.rows("t").length, 1);
    await deliver.close();
    await first.close();
    await second.close();
  });

  test("over HTTP: nobody listens at the first", async () => {
    const second = await startFakeClickHouse();
    second.createTable("t", { a: "UInt32" });
    const deliver = deliverTo([`http://127.0.0.1:${await freePort()}`, second.url]);
    assert.deepEqual(await deliver.inserter.insert(request, never), stored);
    assert.ok(typeof await deliver.tables.refresh("t") === "object");
    await deliver.close();
    await second.close();
  });
});
