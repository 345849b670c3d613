/** InfluxDB's sums equal the ledger, whatever happens to InfluxDB or on the way to it. */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type Behaviour, type FakeInflux, startFakeInflux } from "../kit/fake_influx.ts";
import { type Influx, startInflux } from "../kit/servers.ts";
import type { TypeTotals } from "../../src/contracts.ts";
import { eventually } from "../kit/wait.ts";
import { events } from "./kit.ts";
import { assertSame, BRIEF_MS, hastyClock, LONG_MS, setUp, sums } from "./mirror_kit.ts";

let influx: Influx;
let fake: FakeInflux;
before(async () => {
  influx = await startInflux();
  fake = await startFakeInflux(influx.url);
});
after(async () => {
  await fake.close();
  await influx.close();
});

/**
 * InfluxDB answers a query beside what it does with its cache; a count that is missing or doubled stays so, and is
 * still found.
 */
function assertStored(influx: Influx, database: string, totals: Iterable<TypeTotals>) {
  const all = [...totals];
  return eventually(async () => assertSame(await sums(influx, database), all), { withinMs: 5000 });
}

let serial = 0;
const newDatabase = () => `db${++serial}`;
const atLeast = (count: () => number, wanted: number) =>
  eventually(() => assert.ok(count() >= wanted, `${count()} of ${wanted}`), {
    withinMs: 15_000,
    everyMs: 5,
  });

/** Those whose answer has no end but the mirror's patience. */
const ENDLESS: readonly Behaviour[] = ["hang", "stall", "endless"];
const FAULTS: [name: string, how: Behaviour, attempts: number][] = [
  ["refuses connections", "refuse", 3],
  ["hangs", "hang", 2],
  ["answers a 200 cut in its body", "half", 3],
  ["answers a 400 cut in its body", "half-error", 3],
  ["stalls in the body of its answer", "stall", 2],
  ["answers without end", "endless", 2],
  ["speaks something else", "junk", 3],
  ["writes, and its answer is lost", "lost", 4],
  ["answers 401", { status: 401, body: '{"error":"authorization failed"}' }, 3],
  ["answers 403", { status: 403, body: '{"error":"not authorized"}' }, 3],
  ["answers 404 for another reason", { status: 404, body: "404 page not found" }, 3],
  ["answers 429", { status: 429, body: "slow down" }, 3],
  ["answers 500", { status: 500, body: '{"error":"timeout"}' }, 3],
  ["answers 503", { status: 503 }, 3],
  ["is a web page that answers 200", { status: 200, body: "<h1>Welcome</h1>" }, 3],
  ["redirects", { status: 302, headers: ["Location: http://127.0.0.1:1/"] }, 3],
  ["answers 413 to everything", { status: 413, body: "too large" }, 3],
  ["answers 400 to everything", { status: 400, body: '{"error":"unable to parse"}' }, 3],
  ["is a proxy that answers 400 to everything", { status: 400, body: "<h1>Bad request</h1>" }, 3],
];

describe("the sums equal the ledger when InfluxDB", () => {
  for (const [name, how, attempts] of FAULTS) {
    test(name, async () => {
      const database = newDatabase();
      const timeoutMs = ENDLESS.includes(how) ? BRIEF_MS : LONG_MS;
      const { ledger, log, mirror, feed } = setUp(fake.url, database, { timeoutMs });
      fake.behave("pass");
      const before = fake.seen.length;
      feed();
      mirror.start();
      await atLeast(() => fake.seen.length, before + 3);
      feed();
      const broken = fake.seen.length;
      fake.behave(how);
      await atLeast(() => {
        feed();
        return fake.seen.length;
      }, broken + attempts);
      await atLeast(ledger.mirrorErrors, 1);
      fake.behave("pass");
      await eventually(
        () => assert.ok(log.lines.some(({ message }) => /again/.test(message))),
        { withinMs: 20_000 },
      );
      feed();
      await mirror.writeLast(LONG_MS);
      await assertStored(influx, database, ledger.typeTotals());

      const told = log.lines.filter(({ level }) => level !== "debug");
      assert.ok(told.length <= 4, `one line per change: ${JSON.stringify(told)}`);
    });
  }

  test("is killed and started again in the middle", async () => {
    const own = await startInflux();
    try {
      const { ledger, log, mirror, feed } = setUp(own.url, "shishi");
      mirror.start();
      feed();
      await eventually(async () => assert.ok((await sums(own, "shishi")).length > 0), {
        withinMs: 10_000,
      });
      await own.kill();
      feed();
      await atLeast(ledger.mirrorErrors, 2);
      feed();
      await own.start();
      await eventually(
        () => assert.ok(log.lines.some(({ message }) => /again/.test(message))),
        { withinMs: 20_000 },
      );
      feed();
      await mirror.writeLast(LONG_MS);
      await assertStored(own, "shishi", ledger.typeTotals());
    } finally {
      await own.close();
    }
  });

  test("is left for another and come back to: the sums over both are right, nothing counts twice", async () => {
    const [one, other] = [newDatabase(), newDatabase()];
    const { ledger, mirror, feed } = setUp(influx.url, one);
    const at = (database: string) => ({
      endpoint: { url: influx.url, user: "", password: "", database, label: influx.url },
      intervalMs: 500,
    });
    const holds = (database: string) =>
      eventually(async () => {
        const found = await sums(influx, database);
        assert.ok(found.length > 0);
        return found;
      }, { withinMs: 20_000 });
    feed();
    mirror.start();
    const first = await holds(one);
    mirror.adopt(at(other));
    feed();
    const second = await holds(other);
    mirror.adopt(null);
    feed();
    mirror.adopt(at(one));
    await mirror.writeLast(LONG_MS);
    assert.notDeepEqual(first, second);
    const both = new Map<string, { accepted: number; stored: number }>();
    for (
      const { table, eventType, accepted, stored } of [
        ...await sums(influx, one),
        ...await sums(influx, other),
      ]
    ) {
      const sum = both.get(table + eventType) ?? { accepted: 0, stored: 0 };
      both.set(table + eventType, {
        accepted: sum.accepted + accepted,
        stored: sum.stored + stored,
      });
    }
    for (const { table, eventType, accepted, stored } of ledger.typeTotals()) {
      assert.deepEqual(both.get(table + eventType), { accepted, stored }, table + eventType);
    }
  });

  test("loses its database: it is made again and later counts go on", async () => {
    const database = newDatabase();
    const { ledger, mirror, feed } = setUp(influx.url, database);
    mirror.start();
    feed();
    await eventually(async () => assertSame(await sums(influx, database), ledger.typeTotals()), {
      withinMs: 10_000,
    });
    const gone = new Map([...ledger.typeTotals()].map((t) => [t.table + t.eventType, t]));
    await influx.query(database, `DROP DATABASE ${database}`);
    feed();
    await mirror.writeLast(LONG_MS);
    const later = [...ledger.typeTotals()].map((t) => {
      const before = gone.get(t.table + t.eventType);
      return {
        ...t,
        accepted: t.accepted - (before?.accepted ?? 0),
        stored: t.stored - (before?.stored ?? 0),
      };
    });
    await assertStored(influx, database, later);
  });

  test("takes only a few points at a time", async () => {
    const database = newDatabase();
    const { ledger, mirror } = setUp(fake.url, database);
    ledger.accepted(events(Object.fromEntries(
      Array.from({ length: 900 }, (_, at) => [`type ${at}`, at + 1]),
    )));
    const lines = (body: string) => body.split("\n").length;
    let refusals = 0;
    fake.behave(({ path, body }) => {
      if (!path.startsWith("/write") || lines(body) <= 60) return "pass";
      refusals++;
      return { status: 413, body: "too large" };
    });
    await mirror.writeLast(LONG_MS);
    await assertStored(influx, database, ledger.typeTotals());
    assert.ok(refusals <= 5, `901 points were halved ${refusals} times`);
    fake.behave("pass");
  });

  test("refuses one point for a while and takes the others of the same write", async () => {
    const database = newDatabase();
    const { ledger, log, mirror } = setUp(fake.url, database);
    const types = Array.from({ length: 40 }, (_, at) => [`type${at}`, 1]);
    ledger.accepted(events({ ...Object.fromEntries(types), poison: 5 }));
    await influx.query("", `CREATE DATABASE ${database}`);
    // As InfluxDB does at a partial write: the good points are stored, and the answer is 400.
    fake.behave(async ({ method, path, body }) => {
      if (!body.includes("poison")) return "pass";
      const good = body.split("\n").filter((line) => !line.includes("poison")).join("\n");
      if (good !== "") await (await fetch(influx.url + path, { method, body: good })).text();
      return { status: 400, body: '{"error":"partial write: dropped=1"}' };
    });
    mirror.start();
    await eventually(() => assert.ok(log.lines.some(({ level }) => level === "error")), {
      withinMs: 10_000,
    });
    ledger.accepted(events({ type0: 7, poison: 2 }));
    await atLeast(ledger.mirrorErrors, 3);
    const others = [...ledger.typeTotals()].filter(({ eventType }) => eventType !== "poison");
    await eventually(async () => assertSame(await sums(influx, database), others), {
      withinMs: 10_000,
    });
    fake.behave("pass");
    await mirror.writeLast(LONG_MS);
    await assertStored(influx, database, ledger.typeTotals());
    assert.equal(log.lines.filter(({ level }) => level === "error").length, 1);
  });

  test("holds another type of field under the same name, until someone repairs it", async () => {
    const database = newDatabase();
    await influx.query("", `CREATE DATABASE ${database}`);
    const wrong = await fetch(`${influx.url}/write?db=${database}`, {
      method: "POST",
      body: 'shishi_events accepted="many"',
    });
    assert.equal(wrong.status, 204, await wrong.text());
    const { ledger, mirror, feed } = setUp(influx.url, database);
    mirror.start();
    feed();
    await atLeast(ledger.mirrorErrors, 2);
    const seen = await influx.query(database, "SELECT count(held) AS n FROM shishi_collector");
    assert.ok(Number(seen[0]?.n) > 0, "the other measurement is not held up");
    await influx.query(database, "DROP MEASUREMENT shishi_events");
    feed();
    await mirror.writeLast(LONG_MS);
    await assertStored(influx, database, ledger.typeTotals());
  });

  test("refuses what is older than its retention: those counts come under a later time", async () => {
    const database = newDatabase();
    await influx.query("", `CREATE DATABASE ${database} WITH DURATION 1h`);
    // Like a report that waited out an outage of two hours.
    let lagMs = 7_200_000;
    const clock = { ...hastyClock, nowMs: () => hastyClock.nowMs() - lagMs };
    const { ledger, log, mirror, feed } = setUp(influx.url, database, { clock });
    feed();
    mirror.start();
    await eventually(() => assert.ok(log.lines.some(({ level }) => level === "error")), {
      withinMs: 10_000,
    });
    assert.match(JSON.stringify(log.lines), /beyond retention policy/);
    lagMs = 0;
    feed();
    await mirror.writeLast(LONG_MS);
    await assertStored(influx, database, ledger.typeTotals());
  });

  test("stores a write, loses its answer, and refuses it all when it comes again", async () => {
    const database = newDatabase();
    const { ledger, mirror, feed } = setUp(fake.url, database);
    fake.behave("pass");
    feed();
    mirror.start();
    await eventually(async () => assertSame(await sums(influx, database), ledger.typeTotals()), {
      withinMs: 10_000,
    });
    feed();
    fake.behave("lost");
    await atLeast(ledger.mirrorErrors, 1);
    for (const status of [413, 400]) {
      fake.behave({ status, body: '{"error":"no"}' });
      feed();
      await atLeast(ledger.mirrorErrors, ledger.mirrorErrors() + 2);
    }
    fake.behave("pass");
    await mirror.writeLast(LONG_MS);
    await assertStored(influx, database, ledger.typeTotals());
  });
});
