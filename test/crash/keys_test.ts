/**
 * `kill -9` between a request and the same one again: under the same `Idempotency-Key` it is answered as
 * before and stored once, whether its rows were stored already, still held, or never safe.
 * Runs once: points_test.ts and random_test.ts have the collector on both runtimes.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { startFakeClickHouse } from "../kit/fake_clickhouse.ts";
import { freePort } from "../kit/free_port.ts";
import { type Shishi, startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";

const ROWS = Array.from({ length: 3 }, (_, n) => ({ n }));
const BODY = ROWS.map((row) => JSON.stringify(row)).join("\n") + '\n{"m":1}\n';

const post = (shishi: Shishi, key: string, body = BODY) =>
  shishi.post(body, { path: "/events/numbers", headers: { "idempotency-key": key } });

test(
  "a request that is sent again after kill -9 is stored once",
  { timeout: 120_000 },
  async () => {
    const fake = await startFakeClickHouse();
    fake.createTable("numbers", { n: "UInt32" });
    const dir = tempDir("keys");
    const start = (url: string) =>
      startShishi({
        args: ["--clickhouse-url", url, "--tables=numbers", "--data-dir", dir].concat(
          ["--flush-interval=100ms"],
        ),
      });
    const stored = (rows: number) =>
      eventually(() => assert.equal(fake.rows("numbers").length, rows), { withinMs: 20_000 });
    let shishi = await start(fake.url);
    try {
      const first = await post(shishi, "stored");
      assert.deepEqual([first.status, first.json.accepted, first.json.rejected], [202, 3, 1]);
      await stored(3);
      await shishi.kill();

      // Nothing answers there: rows are held.
      shishi = await start(`http://127.0.0.1:${await freePort()}`);
      const again = await post(shishi, "stored");
      assert.deepEqual([again.status, again.json], [202, {
        ...{ accepted: 3, rejected: 1, ack: "disk", duplicate: true },
        errors: [],
      }]);
      assert.equal((await post(shishi, "stored", '{"n":7}')).status, 422);
      assert.equal((await post(shishi, "held")).json.duplicate, undefined);
      // Some of these are answered, some are not.
      const torn = Array.from(
        { length: 20 },
        (_, at) => post(shishi, `torn-${at}`).then(({ status }) => status === 202, () => false),
      );
      await Promise.race(torn);
      await shishi.kill();
      const told = (await Promise.all(torn)).flatMap((is, at) => is ? [at] : []);

      shishi = await start(fake.url);
      assert.equal((await post(shishi, "held")).json.duplicate, true);
      assert.equal((await post(shishi, "stored")).json.duplicate, true);
      for (let at = 0; at < torn.length; at++) {
        const { status, json } = await post(shishi, `torn-${at}`);
        assert.equal(status, 202);
        if (told.includes(at)) assert.equal(json.duplicate, true, `torn-${at}`);
      }
      await stored(3 * (2 + torn.length));
      shishi.signal("SIGTERM");
      await shishi.exited;

      shishi = await start(fake.url);
      for (const key of ["stored", "held", "torn-0", "torn-19"]) {
        assert.equal((await post(shishi, key)).json.duplicate, true, key);
      }
      assert.equal(fake.rows("numbers").length, 3 * (2 + torn.length));
    } finally {
      await shishi.close();
      await fake.close();
      removeDir(dir);
    }
  },
);
