/**
 * Dead letters from end to end: a row that ClickHouse refuses becomes a letter, the cause is mended,
 * the letter is replayed and stored once, whatever breaks on the way. Real servers, new and old.
 * Runs once: what ClickHouse refuses, and what is made of it, is no affair of the runtime.
 */

import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { type ClickHouse, startClickHouse, startOldClickHouse } from "../kit/servers.ts";
import { AGES } from "../servers/engines.ts";
import { runShishi, type Shishi, startShishi } from "../kit/shishi.ts";
import { startTcpProxy } from "../kit/tcp_proxy.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";
import { ready } from "./around.ts";
import { assertBalance } from "./books.ts";

const folders: string[] = [];
after(() => folders.forEach(removeDir));
function folder(): string {
  folders.push(tempDir("dead"));
  return join(folders.at(-1)!, "data");
}

interface Line {
  readonly table: string;
  readonly shape: string;
  readonly batch: string;
  readonly index: number;
  readonly code: number;
  readonly error: string;
  readonly row: string;
}

function lettersIn(dataDir: string, table: string): Line[] {
  const path = join(dataDir, "dead", `${table}.ndjson`);
  if (!existsSync(path)) return [];
  return readFileSync(path, "utf8").split("\n").slice(0, -1).map((line) => JSON.parse(line));
}

const dead = ({ url }: { readonly url: string }, ...args: string[]) =>
  runShishi(["dead", ...args, "--url", url]);

const replayOver = async (url: string) =>
  await (await fetch(`${url}/api/dead/replay`, { method: "POST" })).text();

/** Resolves once nothing is held and the books balance. */
function settled(shishi: Shishi): Promise<void> {
  return eventually(async () => {
    const { ledger } = await shishi.status();
    assertBalance(ledger, "status");
    assert.equal(ledger.held, 0);
    assert.equal(ledger.lost, 0);
  }, { withinMs: 20_000 });
}

for (const modern of AGES) {
  describe(`ClickHouse ${modern ? "26.7" : "18.16"}`, () => {
    let clickhouse: ClickHouse;
    before(async () => {
      clickhouse = await (modern ? startClickHouse() : startOldClickHouse());
    });
    after(() => clickhouse.close());

    const window = modern ? "SETTINGS non_replicated_deduplication_window = 1000" : "";
    const createTable = (table: string, type = "UInt32") =>
      clickhouse.query(
        `CREATE TABLE ${table} (n Int32, s ${type}) ENGINE = MergeTree ORDER BY n ${window}`,
      );
    const mend = (table: string) => clickhouse.query(`ALTER TABLE ${table} MODIFY COLUMN s String`);
    const count = (table: string) => clickhouse.query(`SELECT count(), uniqExact(n) FROM ${table}`);
    const collector = (dataDir: string, ...args: string[]) =>
      startShishi({
        args: [
          "--tables=*",
          // What the door finds by itself never becomes a letter.
          "--type-check=off",
          "--flush-interval=50ms",
          "--data-dir",
          dataDir,
          ...args,
        ],
        env: { SHISHI_CLICKHOUSE_URL: clickhouse.url },
      });

    /** Ten rows of which those with these numbers are bad while `s` is a number. */
    async function write(
      shishi: Shishi,
      table: string,
      bad: readonly number[],
    ): Promise<string[]> {
      const rows = Array.from(
        { length: 10 },
        (_, n) => bad.includes(n) ? `{"n":${n},"s":"é \\"${n}\\""}` : `{"n":${n},"s":"${n}"}`,
      );
      const answer = await shishi.post(rows.join("\n"), {
        path: `/events/${table}`,
      });
      assert.equal(answer.status, 202, answer.text);
      await settled(shishi);
      return rows;
    }

    test("a bad row is a letter, byte for byte; once mended and replayed it is stored", async () => {
      const dataDir = folder();
      await createTable("mended");
      const shishi = await collector(dataDir);
      try {
        const rows = await write(shishi, "mended", [3, 7]);
        assert.equal(await count("mended"), "8\t8");
        const letters = lettersIn(dataDir, "mended");
        assert.deepEqual(letters.map(({ row }) => row), [rows[3], rows[7]]);
        assert.deepEqual(letters.map(({ index }) => index), [3, 7]);
        assert.ok(letters.every(({ code, error }) => code > 0 && error !== ""));
        assert.ok(
          letters.every(({ table, shape }) => table === "mended" && shape === "row"),
        );
        const shown = await dead(shishi, "show", "mended", "--json");
        assert.deepEqual(
          shown.stdout.trimEnd().split("\n").map((line) => JSON.parse(line).row),
          [rows[3], rows[7]],
        );

        const early = await dead(shishi, "replay");
        assert.equal(early.code, 1);
        assert.match(
          early.stdout,
          /^0 stored\n2 dead again\n {2}\d × code \d+: /,
        );
        assert.deepEqual(lettersIn(dataDir, "mended").map(({ row }) => row), [
          rows[3],
          rows[7],
        ]);

        await mend("mended");
        const late = await dead(shishi, "replay");
        assert.deepEqual([late.code, late.stderr], [0, ""]);
        assert.match(
          late.stdout,
          /^2 stored\n0 dead again\n0 could not be sent\n/,
        );
        assert.equal(await count("mended"), "10\t10");
        assert.deepEqual(lettersIn(dataDir, "mended"), []);
        assert.equal(
          (await dead(shishi, "replay")).code,
          0,
        );
        assert.equal(await count("mended"), "10\t10");
        await settled(shishi);
      } finally {
        await shishi.close();
      }
    });

    test("the answer of a replay is lost: the second replay stores nothing twice", async () => {
      const dataDir = folder();
      await createTable("cut");
      const shishi = await collector(dataDir);
      const proxy = await startTcpProxy(Number(new URL(shishi.url).port));
      try {
        await write(shishi, "cut", [1, 2, 3]);
        await mend("cut");
        proxy.cutAnswers(1_000);
        await assert.rejects(replayOver(proxy.url));
        await settled(shishi);
        const again = await dead(shishi, "replay");
        assert.equal(again.code, 0, again.stderr);
        assert.equal(await count("cut"), "10\t10");
        await settled(shishi);
      } finally {
        await proxy.close();
        await shishi.close();
      }
    });

    test("the same replay twice at once, and again: one batch", async () => {
      const dataDir = folder();
      await createTable("twice");
      const shishi = await collector(dataDir);
      try {
        await write(shishi, "twice", [1]);
        await mend("twice");
        const send = () => shishi.post("", { path: "/api/dead/replay" });
        for (const { status, text } of [...await Promise.all([send(), send()]), await send()]) {
          assert.ok(status === 200 || status === 409, text);
        }
        assert.equal(await count("twice"), "10\t10");
        assert.deepEqual(lettersIn(dataDir, "twice"), []);
      } finally {
        await shishi.close();
      }
    });

    test("letters are full: batches with bad rows wait, others flow; a purge lets them go", async () => {
      const dataDir = folder();
      await createTable("full");
      await createTable("good");
      const shishi = await collector(dataDir, "--dead-max-bytes", "64KiB");
      try {
        const bad = (n: number) => `{"n":${n},"s":"${"x".repeat(70_000)}"}`;
        await shishi.post(bad(0), { path: "/events/full" });
        await settled(shishi);
        assert.equal(lettersIn(dataDir, "full").length, 1);
        // Its good row is stored at once, and not again while the bad one waits.
        await shishi.post(`${bad(1)}\n{"n":2,"s":"2"}`, {
          path: "/events/full",
        });
        await shishi.post('{"n":1,"s":"1"}', { path: "/events/good" });
        await eventually(
          async () => assert.equal(await count("good"), "1\t1"),
          {
            withinMs: 10_000,
          },
        );
        await eventually(
          async () => assert.notEqual(await count("full"), "0\t0"),
          {
            withinMs: 10_000,
          },
        );
        await eventually(async () => {
          const { tables } = await shishi.status();
          assert.match(
            tables.full.trouble ?? "",
            /dead letters are full.*shishi dead purge/,
          );
        }, { withinMs: 10_000 });
        // Long enough for some more tries.
        const untilMs = performance.now() + 3_000;
        await eventually(() => assert.ok(performance.now() > untilMs), {
          withinMs: 5_000,
        });
        const { ledger } = await shishi.status();
        assert.deepEqual([ledger.held, ledger.dead, ledger.lost], [2, 1, 0]);
        assert.equal(
          (await dead(shishi, "purge", "full", "--yes")).stdout,
          "1 letters deleted\n",
        );
        await eventually(
          async () => assert.equal((await shishi.status()).ledger.held, 0),
          {
            withinMs: 40_000,
            everyMs: 200,
          },
        );
        assert.deepEqual(lettersIn(dataDir, "full").map(({ row }) => row), [
          bad(1),
        ]);
        assert.equal(await count("full"), "1\t1");
      } finally {
        await shishi.close();
      }
    });

    if (!modern) return;

    test("kill -9 of the collector amid a replay: stored once", async () => {
      const dataDir = folder();
      await createTable("killed");
      let shishi = await collector(dataDir, "--ack=disk");
      const proxy = await startTcpProxy(Number(new URL(shishi.url).port));
      try {
        await write(shishi, "killed", [1, 2, 3]);
        await mend("killed");
        proxy.cutAnswers(1_000);
        await assert.rejects(replayOver(proxy.url));
        await shishi.kill();
        await shishi.close();
        shishi = await collector(dataDir, "--ack=disk");
        const again = await dead(shishi, "replay");
        assert.equal(again.code, 0, again.stderr);
        await settled(shishi);
        assert.equal(await count("killed"), "10\t10");
      } finally {
        await proxy.close();
        await shishi.close();
      }
    });

    test("an event keeps its id and its time", async () => {
      const dataDir = folder();
      const shishi = await collector(dataDir);
      try {
        await ready(shishi);
        await clickhouse.query(
          "ALTER TABLE analytics_events ADD CONSTRAINT known CHECK user_id != 'nobody'",
        );
        await shishi.post(
          '{"eventType":"a","userId":"nobody"}\n{"eventType":"a","userId":"u"}',
        );
        await settled(shishi);
        const [letter, ...more] = lettersIn(dataDir, "analytics_events");
        assert.equal(more.length, 0);
        assert.deepEqual([letter?.shape, letter?.code], ["event", 469]);
        const { id, timestamp } = JSON.parse(letter!.row);
        await clickhouse.query(
          "ALTER TABLE analytics_events DROP CONSTRAINT known",
        );
        assert.equal(
          (await dead(shishi, "replay")).code,
          0,
        );
        assert.equal(
          await clickhouse.query(
            "SELECT id, toString(timestamp) FROM analytics_events WHERE user_id = 'nobody'",
          ),
          `${id}\t${timestamp}`,
        );
      } finally {
        await shishi.close();
      }
    });
  });
}
