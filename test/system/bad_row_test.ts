/**
 * One bad row costs one row: never the batch, never another table. On the new server and the old.
 * Runs once: what ClickHouse refuses, and what is made of it, is no affair of the runtime.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type ClickHouse, startClickHouse, startOldClickHouse } from "../kit/servers.ts";
import { AGES } from "../servers/engines.ts";
import { type Shishi, startShishi } from "../kit/shishi.ts";
import { eventually, patient, pause } from "../kit/wait.ts";
import { assertDelivered, insertsSent, say, watch } from "./books.ts";
import { bad, createPlain, DEDUPLICATED, good, postLines, postMany, refusals } from "./rows.ts";

const NEVER_SOON = "--flush-interval=10m";
const OTHERS_WITHIN_MS = 2_000;

for (const modern of AGES) {
  const version = modern ? "26.7" : "18.16";
  describe(`ClickHouse ${version}`, () => {
    let clickhouse: ClickHouse;
    before(async () => {
      clickhouse = await (modern ? startClickHouse() : startOldClickHouse());
    });
    after(() => clickhouse.close());

    // What the door finds by itself never gets as far as a batch.
    const unchecked = ["--tables=*", "--type-check=off"];
    const start = (...args: string[]) =>
      startShishi({ args: ["--clickhouse-url", clickhouse.url, ...unchecked, ...args] });
    const count = (table: string) => clickhouse.query(`SELECT count(), uniqExact(n) FROM ${table}`);

    test("one bad row among 10,000: 9,999 land with at most two more INSERTs", async () => {
      await createPlain(clickhouse, "one", modern ? DEDUPLICATED : "");
      const shishi = await start(NEVER_SOON);
      const watching = watch(shishi);
      try {
        const line = (n: number) => n === 7_777 ? bad(n) : good(n);
        await postMany(shishi, "one", 10_000, line);
        const { dead, stored } = await eventually(() => assertDelivered(shishi), {
          withinMs: 10_000,
        });
        assert.deepEqual({ dead, stored }, { dead: 1, stored: 9_999 });
        assert.equal(await count("one"), "9999\t9999");
        const inserts = await insertsSent(shishi);
        assert.ok(inserts <= 3, `${inserts} INSERTs`);
        const [letter, ...more] = await eventually(() => {
          const found = refusals(shishi);
          assert.ok(found.length > 0);
          return found;
        }, { withinMs: 1_000 });
        assert.equal(more.length, 0);
        assert.equal(letter?.table, "one");
        assert.equal(letter?.row, bad(7_777));
        assert.ok(Number(letter?.code) > 0 && String(letter?.error).length > 0);
        await watching.end();
        say(`${version}, one of 10,000`, { INSERTs: inserts });
      } finally {
        await watching.end().catch(() => {});
        await shishi.close();
      }
    });

    // Without deduplication tokens and a sieve an old server is asked row by row.
    const size = modern ? 3_000 : 200;
    const floods: [name: string, isBad: (n: number) => boolean, inserts: number][] = [
      ["every second row bad", (n) => n % 2 === 1, modern ? 20 : size / 2 + 10],
      ["all rows bad", () => true, modern ? 20 : size + 10],
    ];
    for (const [name, isBad, most] of floods) {
      test(`${name}: the flood delays its own table only`, async () => {
        const [flood, calm] = isBad(0) ? ["flood_all", "calm_all"] : ["flood_half", "calm_half"];
        await createPlain(clickhouse, flood, modern ? DEDUPLICATED : "");
        await createPlain(clickhouse, calm);
        const shishi = await start("--flush-interval=200ms", `--max-block-size=${size}`);
        const watching = watch(shishi);
        try {
          const line = (n: number) => isBad(n) ? bad(n) : good(n);
          const batches = 3;
          await postMany(shishi, flood, batches * size, line);
          let slowestMs = 0;
          let landed = 0;
          await eventually(async () => {
            const began = performance.now();
            const answer = await postLines(shishi, calm, [good(landed)], { prefer: "wait=30" });
            slowestMs = Math.max(slowestMs, performance.now() - began);
            assert.equal(answer.status, 200, "the other table's row did not land within 30 s");
            landed++;
            await assertDelivered(shishi);
          }, { withinMs: 30_000 });
          assert.ok(
            slowestMs < patient(OTHERS_WITHIN_MS),
            `another table's row took ${slowestMs} ms`,
          );
          const { dead } = await assertDelivered(shishi);
          const wanted = Array.from({ length: batches * size }, (_, n) => n).filter(isBad);
          assert.equal(dead, wanted.length);
          const kept = batches * size - wanted.length;
          assert.equal(await count(flood), `${kept}\t${kept}`);
          // Every one of them is a dead letter, in full.
          const letters = await eventually(() => {
            const letters = refusals(shishi);
            assert.equal(letters.length, wanted.length);
            return letters;
          }, { withinMs: 5_000 });
          assert.deepEqual(new Set(letters.map(({ row }) => row)), new Set(wanted.map(bad)));
          const inserts = await insertsSent(shishi) - landed;
          // Batches are smaller, and more, where the rows come slowly.
          const sent = Math.max(batches, new Set(letters.map(({ batch }) => batch)).size);
          assert.ok(inserts <= (sent + 1) * most, `${inserts} INSERTs for ${sent} batches`);
          await watching.end();
          say(`${version}, ${name}`, {
            batches: `${batches} of ${size}`,
            INSERTs: inserts,
            "rows of the other table": landed,
            "slowest of them": `${Math.round(slowestMs)} ms`,
          });
        } finally {
          await watching.end().catch(() => {});
          await shishi.close();
        }
      });
    }

    test("a column dropped under load: nothing lost, nothing dead, others flow, and it recovers", async () => {
      await createPlain(clickhouse, "seed", modern ? DEDUPLICATED : "");
      await createPlain(clickhouse, "beside");
      const shishi = await start("--flush-interval=100ms");
      const watching = watch(shishi);
      const loading = startLoad(shishi, "seed");
      try {
        await eventually(async () => {
          assert.ok((await shishi.status()).ledger.stored > 200);
        }, { withinMs: 5_000 });
        await clickhouse.query("ALTER TABLE seed DROP COLUMN s");
        await eventually(async () => {
          const ready = await shishi.get("/readyz");
          assert.equal(ready.status, 503);
          assert.match(ready.json.reasons.join(), /table seed: /);
        }, { withinMs: 5_000 });
        const status = await shishi.status();
        assert.equal(status.state, "degraded");
        assert.equal(status.tables.seed.state, "trouble");
        const until = performance.now() + 3_000;
        let slowestMs = 0;
        for (let n = 0; performance.now() < until; n++) {
          const began = performance.now();
          const answer = await postLines(shishi, "beside", [good(n)], { prefer: "wait=30" });
          assert.equal(answer.status, 200, answer.text);
          slowestMs = Math.max(slowestMs, performance.now() - began);
        }
        assert.ok(slowestMs < patient(OTHERS_WITHIN_MS), `${slowestMs} ms`);
        const probes = await insertsSent(shishi);
        await clickhouse.query("ALTER TABLE seed ADD COLUMN s String");
        const repaired = performance.now();
        await eventually(async () => assert.equal((await shishi.get("/readyz")).status, 200), {
          withinMs: 35_000,
        });
        const recoveredMs = performance.now() - repaired;
        // The columns are asked for again soon, and rows with this one are taken again.
        const acceptedAt = loading.taken();
        await eventually(() => assert.ok(loading.taken() > acceptedAt), { withinMs: 8_000 });
        const { acknowledged, refused } = await loading.end();
        const totals = await eventually(() => assertDelivered(shishi), { withinMs: 20_000 });
        assert.equal(totals.dead, 0);
        assert.equal(refusals(shishi).length, 0);
        assert.equal(await count("seed"), `${acknowledged}\t${acknowledged}`);
        await watching.end();
        say(`${version}, column dropped`, {
          acknowledged,
          "refused by name": refused,
          "INSERTs until repaired": probes,
          "slowest row of the other table": `${Math.round(slowestMs)} ms`,
          "ready again after": `${Math.round(recoveredMs)} ms`,
        });
      } finally {
        await loading.end();
        await watching.end().catch(() => {});
        await shishi.close();
      }
    });

    test("a table that vanishes after it was there: its rows wait, and it recovers", async () => {
      await createPlain(clickhouse, "gone");
      const shishi = await start("--flush-interval=100ms");
      try {
        assert.equal(
          (await postLines(shishi, "gone", [good(1)], { prefer: "wait=30" })).status,
          200,
        );
        await clickhouse.query("DROP TABLE gone");
        await postLines(shishi, "gone", [good(2), bad(3), good(4)]);
        await eventually(async () => {
          const ready = await shishi.get("/readyz");
          assert.equal(ready.status, 503);
          assert.match(ready.json.reasons.join(), /table gone: .*(exist|Unknown)/i);
        }, { withinMs: 5_000 });
        await createPlain(clickhouse, "gone");
        const totals = await eventually(() => assertDelivered(shishi), { withinMs: 35_000 });
        assert.equal(totals.dead, 1);
        assert.equal(await clickhouse.query("SELECT n FROM gone ORDER BY n"), "2\n4");
        assert.equal((await shishi.get("/readyz")).status, 200);
      } finally {
        await shishi.close();
      }
    });

    test("no rights: said without a secret, nothing lost, nothing dead", async () => {
      const url = clickhouse.url.replace("://", "://nobody:hunter2@");
      const shishi = await startShishi({
        args: ["--tables=*", "--flush-interval=100ms"],
        env: { SHISHI_CLICKHOUSE_URL: url },
      });
      try {
        await postLines(shishi, "one", [good(1)]);
        const reasons = await eventually(async () => {
          const ready = await shishi.get("/readyz");
          assert.equal(ready.status, 503);
          assert.match(ready.json.reasons.join(), /table one: /);
          return ready.json.reasons.join();
        }, { withinMs: 8_000 });
        assert.match(reasons, /nobody/);
        const { held, dead, lost } = (await shishi.status()).ledger;
        assert.deepEqual({ held, dead, lost }, { held: 1, dead: 0, lost: 0 });
        assert.doesNotMatch(shishi.stderr() + reasons, /hunter2/);
      } finally {
        await shishi.close();
      }
    });
  });
}

/** Rows, ten a request and as many requests as there is time for, until it is ended. */
function startLoad(shishi: Shishi, table: string) {
  let running = true;
  let sent = 0;
  let acknowledged = 0;
  let refused = 0;
  const client = async () => {
    while (running) {
      const from = sent;
      sent += 10;
      const lines = Array.from({ length: 10 }, (_, at) => good(from + at));
      const answer = await shishi.post(lines.join("\n"), { path: `/events/${table}` });
      if (answer.status === 202) acknowledged += answer.json.accepted;
      else refused += 10;
      assert.ok([202, 400].includes(answer.status), `${answer.status} ${answer.text}`);
      await pause(20);
    }
  };
  const clients = Promise.all(Array.from({ length: 5 }, client));
  clients.catch(() => {});
  return {
    taken: () => acknowledged,
    end: async () => {
      running = false;
      await clients;
      return { acknowledged, refused };
    },
  };
}
