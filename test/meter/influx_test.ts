/** The exact request on the wire, and an end to every exchange. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import process from "node:process";
import { after, before, describe, test } from "node:test";
import { type FakeInflux, startFakeInflux } from "../kit/fake_influx.ts";
import { ManualClock } from "../kit/manual_clock.ts";
import { eventually, patient } from "../kit/wait.ts";
import { createLedger } from "../../src/meter/ledger.ts";
import { createReporter } from "../../src/meter/mirror.ts";
import { events, fixedHoldings, rows } from "./kit.ts";
import { LONG_MS, setUp } from "./mirror_kit.ts";

let fake: FakeInflux;
before(async () => {
  fake = await startFakeInflux(null);
});
after(async () => {
  await fake.close();
});
const last = () => fake.seen.at(-1)!;

describe("a write", () => {
  test("is these bytes", async () => {
    fake.behave("pass");
    const { ledger, mirror } = setUp(fake.url, "my db");
    const batch = events({ "page view": 5, click: 2 });
    ledger.accepted(batch);
    ledger.accepted(rows("flights", "row", 3));
    ledger.settled(batch, 1, new Map([["click", 1]]));
    ledger.insert("analytics_events", 7, 12.5);
    ledger.insertError("flights", 241);
    await mirror.writeLast(LONG_MS);

    const { method, path, headers, body } = last();
    assert.equal(method, "POST");
    const url = new URL(path, "http://host");
    assert.equal(url.pathname, "/write");
    assert.equal(url.searchParams.get("db"), "my db");
    assert.deepEqual([...url.searchParams.keys()], ["db"]);
    assert.equal(headers.authorization, undefined, "no credentials, none sent");
    const time = / (\d{19})$/.exec(body)![1]!;
    assert.ok(Math.abs(Number(time.slice(0, 13)) - Date.now()) < 60_000);
    assert.deepEqual(body.split("\n"), [
      `shishi_collector,group=eu,id=host-1 dead=1i,held=0i,held_bytes=4096i,insert_ms_p50=12.5,insert_ms_p99=12.5,inserts=1i,lost=0i,oldest_s=1.5,rejected=0i,retries=1i,rss_bytes=100000000i,spool_bytes=8192i ${time}`,
      `shishi_events,event_type=page\\ view,table=analytics_events,group=eu,id=host-1 accepted=5i,stored=5i ${time}`,
      `shishi_events,event_type=click,table=analytics_events,group=eu,id=host-1 accepted=2i,stored=1i ${time}`,
      `shishi_events,table=flights,group=eu,id=host-1 accepted=3i,stored=0i ${time}`,
    ]);
  });

  /** The wire of one write: the request as this server's version gets it. */
  async function wire(url: string, user: string, password: string) {
    fake.behave("pass");
    const endpoint = { label: fake.url, url, user, password, database: "d" };
    const { mirror, log } = setUp(fake.url, "d", { endpoint });
    await mirror.writeLast(LONG_MS);
    assert.ok(!JSON.stringify(log.lines).includes(password));
    return last();
  }

  test("carries the user and password of InfluxDB 1, and keeps a path in front", async () => {
    const { path, headers } = await wire(`${fake.url}/behind/proxy/`, "writer", "pä:ss");
    assert.equal(path, "/behind/proxy/write?db=d");
    const [scheme, code] = headers.authorization!.split(" ");
    assert.equal(scheme, "Basic");
    assert.equal(Buffer.from(code!, "base64").toString(), "writer:pä:ss");
  });

  test("carries a token, as InfluxDB 2 and 3 want it, when there is a password alone", async () => {
    const token = "Zk-3_x+/y7Qw==";
    const { method, path, headers } = await wire(fake.url, "", token);
    assert.equal(method, "POST");
    assert.equal(path, "/write?db=d", "no precision=n, which InfluxDB 2 does not know");
    assert.equal(headers.authorization, `Token ${token}`);
    assert.equal(headers["content-type"], "text/plain; charset=utf-8");
  });

  test("with a token that no header can carry is not sent, and does not tell the token", async () => {
    const from = fake.seen.length;
    for (const token of ["line\nX-Evil: 1", "größe", "with space"]) {
      const endpoint = { label: "", url: fake.url, user: "", password: token, database: "d" };
      const { mirror, ledger, log } = setUp(fake.url, "d", { endpoint });
      await mirror.writeLast(2000);
      assert.ok(ledger.mirrorErrors() > 0);
      const told = JSON.stringify(log.lines);
      assert.match(told, /the token holds characters that no header can carry/);
      assert.ok(!told.includes(JSON.stringify(token).slice(1, -1)), told);
    }
    assert.equal(fake.seen.length, from);
  });

  test("is sent again byte for byte until it is taken, while counts gather", async () => {
    const { ledger, mirror } = setUp(fake.url, "d");
    fake.behave("refuse");
    const from = fake.seen.length;
    ledger.accepted(events({ click: 1 }));
    mirror.start();
    await eventually(() => {
      ledger.accepted(events({ click: 1, view: 1 }));
      assert.ok(fake.seen.length >= from + 4);
    }, { withinMs: 20_000, everyMs: 5 });
    fake.behave("pass");
    const failed = fake.seen.slice(from).map(({ body }) => body);
    assert.equal(new Set(failed).size, 1);
    await mirror.writeLast(LONG_MS);
    const written = fake.seen.slice(from).map(({ body }) => body);
    assert.equal(new Set(written).size, 2, "the frozen report and one for all that came since");
    const clicks = [...new Set(written)].map((body) =>
      Number(/event_type=click\S+ accepted=(\d+)i/.exec(body)?.[1] ?? 0)
    );
    const accepted = ledger.eventTotals().get("click");
    assert.equal(clicks.reduce((sum, n) => sum + n, 0), accepted);
  });

  test("of thousands of series is cut into writes of at most 1000 points", async () => {
    fake.behave("pass");
    const from = fake.seen.length;
    const { ledger, mirror } = setUp(fake.url, "d");
    for (let t = 0; t < 950; t++) ledger.accepted(rows(`table_${t}`, "row", 1));
    const types = Array.from({ length: 1500 }, (_, at) => [`type ${at}`, 1]);
    ledger.accepted(events(Object.fromEntries(types)));
    await mirror.writeLast(LONG_MS);
    const sizes = fake.seen.slice(from).map(({ body }) => body.split("\n").length);
    assert.deepEqual(sizes, [1000, 952]);
  });

  test("reads no answer without end", async () => {
    fake.behave("endless");
    const before = process.memoryUsage().rss;
    const from = fake.seen.length;
    const { ledger, mirror } = setUp(fake.url, "d");
    mirror.start();
    await eventually(() => assert.ok(fake.seen.length >= from + 5), { withinMs: 20_000 });
    mirror.stop();
    assert.ok(ledger.mirrorErrors() >= 4);
    assert.ok(process.memoryUsage().rss - before < 100e6);
    await eventually(() => assert.equal(fake.open(), 0), { withinMs: 10_000 });
  });
});

/** What those say that the real server of these tests, an InfluxDB 1.6, does not. */
describe("InfluxDB 2 and 3", () => {
  const NO_BUCKET = '{"code":"not found","message":"no dbrp mapping found"}';
  const UNAUTHORIZED = '{"code":"unauthorized","message":"unauthorized access"}';
  const DROPPED =
    '{"code":"unprocessable entity","message":"failure writing points to database: partial write: ' +
    'dropped 1 points outside retention policy of duration 1h0m0s"}';
  const PARTIAL =
    '{"error":"partial write of line protocol occurred","data":[{"original_line":"m","line_number":1}]}';

  test("without a bucket are told of, not asked to create a database; later all is there", async () => {
    for (const [status, body] of [[404, NO_BUCKET], [401, UNAUTHORIZED]] as const) {
      const from = fake.seen.length;
      fake.behave({ status, body });
      const { ledger, log, mirror } = setUp(fake.url, "d");
      ledger.accepted(events({ click: 1 }));
      mirror.start();
      await eventually(() => assert.ok(ledger.mirrorErrors() >= 2), { withinMs: 10_000 });
      fake.behave("pass");
      await mirror.writeLast(LONG_MS);
      const seen = fake.seen.slice(from);
      assert.ok(seen.every(({ path }) => path === "/write?db=d"), "nothing but writes");
      assert.equal(
        new Set(seen.map(({ body }) => body)).size,
        2,
        "the same report until it is taken",
      );
      const warning = log.lines.find(({ level }) => level === "warn");
      assert.match(JSON.stringify(warning), new RegExp(JSON.parse(body).message));
    }
  });

  const TOO_OLD =
    '{"code":"internal error","message":"unexpected error writing points to database: partial write: ' +
    'points beyond retention policy dropped=1"}';

  test("refuse points in their own words: 400, 422 and 500", async () => {
    for (
      const [status, body, keepsTime] of [[400, PARTIAL, true], [422, DROPPED, false], [
        500,
        TOO_OLD,
        false,
      ]] as const
    ) {
      const from = fake.seen.length;
      fake.behave(({ body: lines }) => lines.includes("poison") ? { status, body } : "pass");
      const { ledger, mirror } = setUp(fake.url, "d");
      ledger.accepted(events({ poison: 1, click: 1 }));
      mirror.start();
      await eventually(() => assert.ok(ledger.mirrorErrors() >= 1), { withinMs: 10_000 });
      fake.behave("pass");
      await mirror.writeLast(LONG_MS);
      const lines = fake.seen.slice(from).flatMap(({ body }) => body.split("\n"))
        .filter((line) => line.includes("poison"));
      const times = new Set(lines.map((line) => line.split(" ").at(-1)));
      assert.ok(lines.length >= 3, "with others, alone, and when it is taken");
      assert.equal(times.size === 1, keepsTime, [...times].join());
    }
  });
});

describe("the end", () => {
  test("is bounded by its deadline when InfluxDB hangs", async () => {
    fake.behave("hang");
    const { ledger, log, mirror } = setUp(fake.url, "d");
    ledger.accepted(events({ click: 1 }));
    const startMs = performance.now();
    await mirror.writeLast(6_000);
    const tookMs = performance.now() - startMs;
    assert.ok(tookMs >= 250 && tookMs < patient(3000), `${tookMs} ms`);
    assert.ok(log.lines.some(({ message }) => /last counts/.test(message)));
    await eventually(() => assert.equal(fake.open(), 0), { withinMs: 10_000 });
  });

  test("writes what is under way first, then the rest, once", async () => {
    const { ledger, mirror } = setUp(fake.url, "d");
    let release = () => {};
    const held = new Promise<void>((resolve) => release = resolve);
    const from = fake.seen.length;
    fake.behave(async () => {
      await held;
      return "pass" as const;
    });
    ledger.accepted(events({ click: 1 }));
    mirror.start();
    await eventually(() => assert.equal(fake.seen.length, from + 1), { withinMs: 10_000 });
    ledger.accepted(events({ click: 10 }));
    const end = mirror.writeLast(LONG_MS);
    release();
    await end;
    const clicks = fake.seen.slice(from).map(({ body }) =>
      /click.* accepted=(\d+)i/.exec(body)?.[1]
    );
    assert.deepEqual(clicks, ["1", "10"]);
  });

  test("comes at once with stop, and nothing is sent after it", async () => {
    const clock = new ManualClock();
    const { mirror } = setUp(fake.url, "d", { clock });
    const from = fake.seen.length;
    mirror.start();
    mirror.stop();
    await clock.advance(60_000);
    await mirror.writeLast(1000);
    assert.equal(fake.seen.length, from);
    assert.equal(clock.pending, 0);
  });

  test("a mirror that cannot reach anything never throws", async () => {
    const { ledger, mirror } = setUp("http://127.0.0.1:1", "d", {
      fetch: () => {
        throw new Error("no network");
      },
    });
    mirror.start();
    await eventually(() => assert.ok(ledger.mirrorErrors() >= 2), { withinMs: 10_000 });
    await mirror.writeLast(5_000);
  });
});

describe("a report", () => {
  function reporter(clock: ManualClock) {
    const ledger = createLedger();
    const deps = { ledger, holdings: fixedHoldings(), group: "eu", id: "a", rssBytes: () => 1 };
    return { ledger, reporter: createReporter({ ...deps, clock }) };
  }

  test("never shares its timestamp with another one, also when the clock is set back", () => {
    const clock = new ManualClock();
    const { reporter: source } = reporter(clock);
    const stamps: bigint[] = [];
    for (const byMs of [0, 0, 0, -5000, 1, 100_000, -1]) {
      clock.setWall(byMs);
      stamps.push(BigInt(source.next()[0]!.timestampNs));
    }
    stamps.reduce((before, stamp) => {
      assert.ok(stamp > before, `${stamp} after ${before}`);
      return stamp;
    });
  });

  test("of two collectors by the same name at the same moment has another timestamp", () => {
    const one = reporter(new ManualClock(1)).reporter.next()[0]!;
    const two = reporter(new ManualClock(2)).reporter.next()[0]!;
    assert.equal(one.timestampNs.slice(0, 13), two.timestampNs.slice(0, 13));
    assert.notEqual(one.timestampNs, two.timestampNs);
  });

  test("has only series that changed; what is given back is in the next one", () => {
    const { ledger, reporter: source } = reporter(new ManualClock());
    ledger.accepted(events({ a: 1, b: 2 }));
    const counts = () =>
      source.next().filter(({ measurement }) => measurement === "shishi_events")
        .map((point) => ({ ...point, type: point.tags.event_type }));
    const first = counts();
    assert.deepEqual(first.map(({ type, fields }) => [type, fields.accepted]), [["a", 1], [
      "b",
      2,
    ]]);
    assert.deepEqual(counts(), []);
    ledger.accepted(events({ b: 5 }));
    first[1]!.giveBack(false);
    assert.deepEqual(counts().map(({ type, fields }) => [type, fields.accepted]), [["b", 7]]);
    assert.deepEqual(counts(), []);
  });
});
