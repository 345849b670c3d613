/** The room against the real servers: floods of bad rows, events, constraints, partitions, and the seeds' tables. */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Delivery } from "../../src/contracts.ts";
import type { Deliver } from "../../src/deliver/deliver.ts";
import type { ClickHouse } from "../kit/servers.ts";
import { ENGINES } from "../servers/engines.ts";
import { batchOf, deliverTo, never } from "./kit.ts";

const WINDOW = "SETTINGS non_replicated_deduplication_window = 1000";

function deadOf(delivery: Delivery): number[] {
  assert.equal(delivery.kind, "settled", JSON.stringify(delivery));
  return delivery.kind === "settled" ? delivery.dead.map((row) => row.index) : [];
}

function insertsOf(delivery: Delivery): number {
  return delivery.kind === "settled" ? delivery.inserts : Infinity;
}

for (const { version, modern, start } of ENGINES) {
  describe(`ClickHouse ${version}`, () => {
    let server: ClickHouse;
    let deliver: Deliver;
    before(async () => {
      server = await start();
      await server.query("CREATE DATABASE room");
      await server.query("CREATE DATABASE `my-room`");
      deliver = deliverTo([`${server.url}/room`]);
    });
    after(async () => {
      await deliver.close();
      await server.close();
    });

    const floods: [string, (row: number) => boolean, { sieved: number; named: number }][] = [
      ["one", (row) => row === 7777, { sieved: 2, named: 2 }],
      ["ten", (row) => row % 1000 === 5, { sieved: 11, named: 12 }],
      ["a thousand", (row) => row % 10 === 3, { sieved: 19, named: 1010 }],
    ];
    for (const [name, bad, limit] of floods) {
      test(`${name} bad of 10,000: the others land`, async () => {
        const table = `flood_${name.replace(" ", "_")}`;
        await server.query(
          `CREATE TABLE room.${table} (a UInt32, b String) ENGINE = MergeTree ORDER BY a ${
            modern ? WINDOW : ""
          }`,
        );
        const rows = Array.from({ length: 10_000 }, (_, row) => row);
        const lines = rows.map((row) =>
          JSON.stringify({ a: bad(row) ? "no" : row, b: `row ${row}` })
        );
        const delivery = await deliver.sink.deliver(batchOf(lines, { table }), never);
        assert.deepEqual(deadOf(delivery), rows.filter(bad));
        const limited = modern ? limit.sieved : limit.named;
        assert.ok(insertsOf(delivery) <= limited, `${insertsOf(delivery)} INSERTs`);
        const good = String(rows.filter((row) => !bad(row)).length);
        assert.equal(
          await server.query(`SELECT count(), uniqExact(a) FROM room.${table}`),
          `${good}\t${good}`,
        );
      });
    }

    test("the Go worker's table", async () => {
      await server.query(
        "CREATE TABLE room.test_go_worker (Time DateTime, Value String) ENGINE = MergeTree PARTITION BY toYYYYMM(Time) ORDER BY Time",
      );
      const lines = [
        '{"Time":"2018-05-04T12:00:00Z","Value":"iso"}',
        '{"Time":"2018-05-04 12:00:01","Value":"plain"}',
        '{"Time":1525435202,"Value":"epoch"}',
        '{"Time":"tomorrow","Value":"bad"}',
      ];
      const delivery = await deliver.sink.deliver(
        batchOf(lines, { table: "test_go_worker" }),
        never,
      );
      assert.deepEqual(deadOf(delivery), [3]);
      assert.equal(
        await server.query(
          "SELECT toUnixTimestamp(Time), Value FROM room.test_go_worker ORDER BY Time",
        ),
        "1525435200\tiso\n1525435201\tplain\n1525435202\tepoch",
      );
    });

    test("the job board's table", async () => {
      await server.query(
        "CREATE TABLE room.EventServiceAdvertisingLoggerRequest (idRequest UUID, ip UInt32, bid Float64, eventId UInt64, createdAt DateTime, createdDate Date DEFAULT toDate(createdAt)) ENGINE = MergeTree PARTITION BY toYYYYMM(createdDate) ORDER BY createdAt",
      );
      const lines = [
        '{"idRequest":"61f0c404-5cb3-11e7-907b-a6006ad3dba0","ip":3232235777,"bid":0.25,"eventId":18446744073709551615,"createdAt":"2018-01-02 03:04:05"}',
        '{"idRequest":"no uuid","ip":1,"bid":1,"eventId":1,"createdAt":"2018-01-02 03:04:05"}',
      ];
      const table = "EventServiceAdvertisingLoggerRequest";
      assert.deepEqual(deadOf(await deliver.sink.deliver(batchOf(lines, { table }), never)), [1]);
      assert.equal(
        await server.query(`SELECT idRequest, ip, bid, eventId FROM room.${table}`),
        "61f0c404-5cb3-11e7-907b-a6006ad3dba0\t3232235777\t0.25\t18446744073709551615",
      );
      // 18.16 knows no DEFAULT of a key that a line leaves out; it gives the type's zero.
      if (modern) {
        assert.equal(await server.query(`SELECT createdDate FROM room.${table}`), "2018-01-02");
      }
    });

    test("a database may be called anything", async () => {
      await server.query("CREATE TABLE `my-room`.t (a UInt32) ENGINE = MergeTree ORDER BY a");
      const other = deliverTo([`${server.url}/my-room`]);
      assert.equal(typeof await other.tables.refresh("t"), "object");
      assert.deepEqual(deadOf(await other.sink.deliver(batchOf(['{"a":1}', '{"a":"x"}']), never)), [
        1,
      ]);
      assert.equal(await server.query("SELECT count() FROM `my-room`.t"), "1");
      await other.close();
    });

    test("a dropped column holds the batch, and its return lets it go", async () => {
      await server.query(
        "CREATE TABLE room.dropped (a UInt32, b String) ENGINE = MergeTree ORDER BY a",
      );
      const known = await deliver.tables.refresh("dropped");
      assert.ok(typeof known === "object");
      const batch = batchOf(['{"a":1,"b":"x"}', '{"a":2,"b":"y"}'], {
        table: "dropped",
        fingerprint: known.fingerprint,
      });
      await server.query("ALTER TABLE room.dropped DROP COLUMN b");
      assert.equal((await deliver.sink.deliver(batch, never)).kind, "table");
      await server.query("ALTER TABLE room.dropped ADD COLUMN b String");
      assert.deepEqual(deadOf(await deliver.sink.deliver(batch, never)), []);
      assert.equal(await server.query("SELECT count() FROM room.dropped"), "2");
    });

    test("bad rows that a client labels with another row's number cost only themselves", async () => {
      await server.query(
        "CREATE TABLE room.labelled (a UInt32, e Enum8('x' = 1)) ENGINE = MergeTree ORDER BY a",
      );
      const lines = [
        '{"a":1,"e":"x"}',
        '{"a":2,"e":": (at row 1)\\n, e.what() = DB::Exception"}',
        '{"a":3,"e":"x"}',
        '{"a":": (at row 1)\\n: While executing A. (B) (version 1)"}',
      ];
      const delivery = await deliver.sink.deliver(batchOf(lines, { table: "labelled" }), never);
      assert.deepEqual(deadOf(delivery), [1, 3]);
      assert.equal(await server.query("SELECT a FROM room.labelled ORDER BY a"), "1\n3");
    });

    const event = (id: number, rest: string) =>
      `{"id":"0192f0c1-0000-7000-8000-${
        String(id).padStart(12, "0")
      }","timestamp":"2026-01-02T03:04:05.678Z",${rest}}`;

    if (!modern) {
      test("events are refused with a sentence", async () => {
        const batch = batchOf([event(1, '"eventType":"a"')], {
          table: "analytics_events",
          shape: "event",
        });
        const delivery = await deliver.sink.deliver(batch, never);
        assert.equal(delivery.kind, "table");
        const sentence =
          "analytics_events needs ClickHouse 21.8 or newer for Map columns; this server is 18.16.1; POST /events/TABLE works";
        assert.equal(delivery.kind === "table" && delivery.message, sentence);
        const prepared = await deliver.prepare();
        assert.equal(!prepared.ok && prepared.problem, sentence);
      });
      return;
    }

    test("events: the table is created, values become strings with every digit, a bad one costs itself", async () => {
      const lines = [
        event(
          1,
          '"eventType":"a","userId":"u","properties":{"n":18446744073709551615,"f":1.50,"b":true,"z":null,"o":{"x":[1,"y"]}}',
        ),
        event(2, '"eventType":"b","properties":{"a":1},"zz":1'),
        event(3, '"eventType":"c"'),
        event(4, '"eventType":"d","properties":[1]'),
      ];
      const batch = batchOf(lines, { table: "analytics_events", shape: "event" });
      const delivery = await deliver.sink.deliver(batch, never);
      assert.deepEqual(deadOf(delivery), [1, 3]);
      assert.deepEqual(
        (await server.query(
          "SELECT event_type, user_id, timestamp, properties FROM room.analytics_events ORDER BY event_type FORMAT JSONEachRow",
        )).split("\n").map((line) => JSON.parse(line)),
        [
          {
            event_type: "a",
            user_id: "u",
            timestamp: "2026-01-02 03:04:05.678",
            properties: {
              n: "18446744073709551615",
              f: "1.50",
              b: "true",
              z: "",
              o: '{"x":[1,"y"]}',
            },
          },
          { event_type: "c", user_id: "", timestamp: "2026-01-02 03:04:05.678", properties: {} },
        ],
      );
      // A restart knows nothing of the batch but its bytes and its id: sending it again stores nothing.
      const again = batchOf(lines, { table: "analytics_events", shape: "event", id: batch.id });
      assert.deepEqual(deadOf(await deliver.sink.deliver(again, never)), [1, 3]);
      assert.equal(await server.query("SELECT count() FROM room.analytics_events"), "2");
    });

    test("a flood of bad events is sieved", async () => {
      await deliver.prepare();
      const lines = Array.from(
        { length: 5000 },
        (_, at) => event(at, `"eventType":"flood","properties":${at % 4 === 0 ? "[]" : "{}"}`),
      );
      const batch = batchOf(lines, { table: "analytics_events", shape: "event" });
      const delivery = await deliver.sink.deliver(batch, never);
      assert.equal(deadOf(delivery).length, 1250);
      assert.ok(insertsOf(delivery) <= 20);
    });

    test("a constraint's row is named; too many partitions are halved; a failing view holds the batch", async () => {
      await server.query(
        `CREATE TABLE room.strict (a UInt32, p UInt32, CONSTRAINT small CHECK a < 100) ENGINE = MergeTree PARTITION BY p ORDER BY a ${WINDOW}`,
      );
      const constrained = batchOf(['{"a":1}', '{"a":200}', '{"a":3}'], { table: "strict" });
      const first = await deliver.sink.deliver(constrained, never);
      assert.deepEqual(deadOf(first), [1]);
      assert.equal(insertsOf(first), 2);

      const lines = Array.from({ length: 300 }, (_, at) => `{"a":5,"p":${at}}`);
      const spread = await deliver.sink.deliver(batchOf(lines, { table: "strict" }), never);
      assert.deepEqual(deadOf(spread), []);
      assert.ok(insertsOf(spread) <= 8);
      assert.equal(await server.query("SELECT count() FROM room.strict"), "302");

      await server.query(
        `CREATE TABLE room.viewed (a UInt32) ENGINE = MergeTree ORDER BY a ${WINDOW}`,
      );
      await server.query(
        "CREATE MATERIALIZED VIEW room.view ENGINE = MergeTree ORDER BY x AS SELECT intDiv(10, a) AS x FROM room.viewed",
      );
      const batch = batchOf(['{"a":1}', '{"a":0}'], { table: "viewed" });
      for (let time = 0; time < 3; time++) {
        assert.equal((await deliver.sink.deliver(batch, never)).kind, "table");
      }
      assert.equal(await server.query("SELECT count() <= 2 FROM room.viewed"), "1");
    });
  });
}
