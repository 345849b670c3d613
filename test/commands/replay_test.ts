/** `shishi dead replay` against a collector that misbehaves: every row once, no letter lost. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import fc from "fast-check";
import { nodeFiles } from "../../src/runtime/files.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { giveLetters } from "../../src/commands/dead_post.ts";
import { PORTION_ROWS } from "../../src/dead/replay.ts";
import { replayTables } from "../../src/commands/dead_report.ts";
import { batch, boxOf, idsOf, lettersIn, lettersOf, namesIn } from "../batch/letters_kit.ts";
import { freePort } from "../kit/free_port.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import {
  type FakeCollector,
  type FakeOptions,
  type Odd,
  startFakeCollector,
} from "./fake_collector.ts";

const folders: string[] = [];
function folder(): string {
  folders.push(tempDir("replay"));
  return join(folders.at(-1)!, "data");
}
after(() => folders.forEach(removeDir));

/** Letters with these rows; codes by place. */
async function letters(
  dataDir: string,
  rows: readonly string[],
  { table = "t", shape = "row" as "row" | "event", codes = [27] } = {},
): Promise<void> {
  const answer = await lettersIn({ dataDir }).bury(
    batch(`b-${table}-${shape}`, table, shape),
    rows.map((_, index) => ({ index, code: codes[index % codes.length]!, message: "bad" })),
    rows,
  );
  assert.equal(answer, "kept");
}

const numbered = (count: number) => Array.from({ length: count }, (_, n) => `{"n":${n},"é":"ü"}`);

interface Run {
  readonly code: number;
  readonly out: string[];
  readonly err: string[];
}

async function replay(
  dataDir: string,
  url: string,
  { code = null as number | null, timeoutMs = 10_000, hurry = true } = {},
): Promise<Run> {
  const out: string[] = [];
  const err: string[] = [];
  const letterbox = boxOf(dataDir);
  // Pauses are part of the promise, not of these tests.
  const clock = hurry
    ? { ...systemClock, after: (_: number, task: () => void) => systemClock.after(0, task) }
    : systemClock;
  const exit = await replayTables(await letterbox.tables(), {
    files: nodeFiles,
    dataDir,
    letterbox,
    code,
    clock,
    terminal: false,
    write: () => {},
    out: (line) => void out.push(line),
    err: (line) => void err.push(line),
    give: ({ waiting }) => (portion, id, again) =>
      giveLetters(
        { url, token: null, certificates: [], timeoutMs, clock, waiting },
        portion,
        id,
        again,
      ),
  });
  return { code: exit, out, err };
}

async function against(
  options: FakeOptions,
  work: (collector: FakeCollector) => Promise<void>,
): Promise<void> {
  const collector = await startFakeCollector(options);
  try {
    await work(collector);
  } finally {
    await collector.close();
  }
}

test("all rows are stored, as they were and in order; nothing is left", async () => {
  const dataDir = folder();
  const rows = numbered(100);
  await letters(dataDir, rows);
  await letters(dataDir, ['{"eventType":"a"}'], { table: "events", shape: "event" });
  await against({}, async (collector) => {
    const run = await replay(dataDir, collector.url);
    assert.deepEqual(run, {
      code: 0,
      out: ["101 stored", "0 dead again", "0 could not be sent"],
      err: [],
    });
    assert.deepEqual(collector.posts.map(({ path, rows }) => [path, rows.length]), [
      ["/events", 1],
      ["/events/t", 100],
    ]);
    const [events, plain] = collector.posts;
    assert.deepEqual(plain!.rows, rows);
    assert.match(events!.replay, /^events\/[0-9a-f-]{36}$/);
    assert.match(plain!.replay, /^t\/[0-9a-f-]{36}$/);
    assert.match(plain!.prefer, /handling=strict.*wait=\d+/);
    assert.equal(plain!.authorization, "");
  });
  assert.deepEqual(namesIn(dataDir), []);
  assert.deepEqual((await replay(dataDir, "http://127.0.0.1:1")).out, [
    "no dead letters to replay",
  ]);
});

test("rows that are dead again are letters again, with their new reason", async () => {
  const dataDir = folder();
  await letters(dataDir, numbered(10));
  await against({ dataDir, dead: (row) => row.includes('"n":3,') }, async (collector) => {
    const run = await replay(dataDir, collector.url);
    assert.equal(run.code, 1);
    assert.deepEqual(run.out, [
      "9 stored",
      "1 dead again",
      "  1 × code 26: still bad",
      "0 could not be sent",
    ]);
    const [letter, ...more] = await lettersOf(dataDir);
    assert.equal(more.length, 0);
    assert.deepEqual([letter?.code, letter?.row], [26, '{"n":3,"é":"ü"}']);
    assert.deepEqual(namesIn(dataDir), ["t.ndjson"]);
  });
});

test("a second replay of what died again stores it once the cause is gone", async () => {
  const dataDir = folder();
  await letters(dataDir, numbered(10));
  let fixed = false;
  await against({ dataDir, dead: () => !fixed }, async (collector) => {
    assert.equal((await replay(dataDir, collector.url)).code, 1);
    fixed = true;
    assert.equal((await replay(dataDir, collector.url)).code, 0);
    assert.deepEqual(collector.stored, numbered(10));
  });
});

test("--code sends only those; the others stay as they are", async () => {
  const dataDir = folder();
  await letters(dataDir, numbered(10), { codes: [26, 27] });
  await against({}, async (collector) => {
    assert.equal((await replay(dataDir, collector.url, { code: 27 })).code, 0);
    assert.deepEqual(collector.stored, numbered(10).filter((_, n) => n % 2 === 1));
    assert.ok((await lettersOf(dataDir)).every(({ code }) => code === 26));
    assert.equal((await replay(dataDir, collector.url)).code, 0);
    assert.deepEqual(collector.stored.toSorted(), numbered(10));
  });
});

test("portions are bounded, and each has an id of its own", async () => {
  const dataDir = folder();
  await letters(dataDir, numbered(PORTION_ROWS + 1));
  await against({}, async (collector) => {
    assert.equal((await replay(dataDir, collector.url)).code, 0);
    assert.deepEqual(collector.posts.map(({ rows }) => rows.length), [PORTION_ROWS, 1]);
    assert.equal(new Set(collector.posts.map(({ replay }) => replay)).size, 2);
  });
});

describe("what the collector does not take", () => {
  test("rows that it refuses stay letters; the others are stored, however many there are", async () => {
    const dataDir = folder();
    const rows = numbered(1000);
    await letters(dataDir, rows);
    const bad = (row: string) => JSON.parse(row).n % 3 === 0;
    await against({ refuse: (row) => bad(row) ? "n: no column" : null }, async (collector) => {
      const run = await replay(dataDir, collector.url);
      assert.equal(run.code, 1);
      assert.deepEqual(run.out, [
        "666 stored",
        "334 dead again",
        "  334 × refused by the collector: n: no column",
        "0 could not be sent",
      ]);
      assert.deepEqual(
        collector.stored.toSorted(),
        rows.filter((row) => !bad(row)).toSorted(),
      );
      assert.equal((await lettersOf(dataDir)).length, 334);
    });
  });

  test("too large: in smaller portions; a row that is too large alone stays", async () => {
    const dataDir = folder();
    const rows = [...numbered(50), JSON.stringify({ s: "x".repeat(2_000) })];
    await letters(dataDir, rows);
    await against({ maxBodyBytes: 1_000 }, async (collector) => {
      const run = await replay(dataDir, collector.url);
      assert.equal(run.code, 1);
      assert.deepEqual(run.out.slice(-1), ["1 could not be sent"]);
      assert.match(run.err.join("\n"), /413: too large/);
      assert.deepEqual(collector.stored, numbered(50));
      assert.deepEqual((await lettersOf(dataDir)).map(({ row }) => row), rows.slice(-1));
    });
  });

  test("a table that it does not have: its letters stay, the next table's go", async () => {
    const dataDir = folder();
    await letters(dataDir, numbered(5), { table: "a" });
    await letters(dataDir, numbered(7), { table: "b" });
    await against({ tables: ["b"] }, async (collector) => {
      const run = await replay(dataDir, collector.url);
      assert.equal(run.code, 1);
      assert.deepEqual(run.out, ["7 stored", "0 dead again", "5 could not be sent"]);
      assert.match(run.err.join("\n"), /404: there is no table a/);
      assert.equal((await lettersOf(dataDir, "a")).length, 5);
    });
  });
});

test("nobody listens: said once, everything stays, all tables are counted", async () => {
  const dataDir = folder();
  await letters(dataDir, numbered(5), { table: "a" });
  await letters(dataDir, numbered(7), { table: "b" });
  const run = await replay(dataDir, `http://127.0.0.1:${await freePort()}`);
  assert.equal(run.code, 1);
  assert.deepEqual(run.out, ["0 stored", "0 dead again", "12 could not be sent"]);
  assert.equal(run.err.length, 1);
  assert.match(run.err[0]!, /^http:\S+: nothing listens there; --url names the collector$/);
  assert.equal((await idsOf(dataDir, "a")).length + (await idsOf(dataDir, "b")).length, 12);
});

test("busy: it waits as it was asked, then goes on", async () => {
  const dataDir = folder();
  await letters(dataDir, numbered(5));
  await against({}, async (collector) => {
    collector.misbehave({ status: 429, retryAfter: 1 }, { status: 503, retryAfter: 0 });
    const startedMs = performance.now();
    const run = await replay(dataDir, collector.url, { hurry: false });
    assert.equal(run.code, 0, run.err.join("\n"));
    assert.ok(performance.now() - startedMs >= 990);
    assert.equal(new Set(collector.posts.map(({ replay }) => replay)).size, 1);
  });
});

test("busy for longer than the timeout: nothing was taken, everything stays", async () => {
  const dataDir = folder();
  await letters(dataDir, numbered(5));
  await against({}, async (collector) => {
    collector.misbehave({ status: 503, error: "paused" });
    const run = await replay(dataDir, collector.url, { timeoutMs: 0 });
    assert.equal(run.code, 1);
    assert.match(run.err.join("\n"), /503: paused/);
    assert.equal((await idsOf(dataDir)).length, 5);
    assert.equal((await replay(dataDir, collector.url)).code, 0);
    assert.deepEqual(collector.stored, numbered(5));
  });
});

test("a slow ClickHouse is waited for, under the same id", async () => {
  const dataDir = folder();
  await letters(dataDir, numbered(5));
  await against({}, async (collector) => {
    collector.misbehave("slow", "slow");
    assert.equal((await replay(dataDir, collector.url)).code, 0);
    assert.equal(collector.posts.length, 3);
    assert.deepEqual(collector.stored, numbered(5));
  });
});

test("a collector that does not know replays is not asked again after a 202", async () => {
  const dataDir = folder();
  await letters(dataDir, numbered(5));
  await against({}, async (collector) => {
    collector.misbehave({ status: 202 });
    const run = await replay(dataDir, collector.url);
    assert.equal(run.code, 1);
    assert.equal(collector.posts.length, 1);
    assert.equal((await idsOf(dataDir)).length, 5);
  });
});

test("the answer is lost: the next run sends the same rows under the same id, whatever it is asked for", async () => {
  const dataDir = folder();
  await letters(dataDir, numbered(10), { codes: [26, 27] });
  await against({}, async (collector) => {
    collector.misbehave("cut after");
    assert.equal((await replay(dataDir, collector.url, { timeoutMs: 0 })).code, 1);
    assert.equal(
      (await idsOf(dataDir)).length,
      10,
      "a letter goes only when its row is known to be stored",
    );
    await lettersIn({ dataDir }).bury(batch("new"), [{ index: 0, code: 99, message: "" }], ["{}"]);
    assert.equal((await replay(dataDir, collector.url, { code: 99 })).code, 0);
    assert.equal(collector.posts[0]?.replay, collector.posts[1]?.replay);
    assert.deepEqual(collector.posts[0]?.rows, collector.posts[1]?.rows);
    assert.deepEqual(collector.stored, [...numbered(10), "{}"]);
    assert.deepEqual(namesIn(dataDir), []);
  });
});

test("whatever happens on the way: every row once in ClickHouse or a letter, and all in the end", async () => {
  const odd: fc.Arbitrary<Odd> = fc.oneof(
    fc.constantFrom<Odd>("usual", "cut after", "cut before", "slow"),
    fc.constantFrom(408, 429, 500, 503, 404, 401, 413, 502).map((status) => ({
      status,
      retryAfter: 0,
    })),
  );
  await fc.assert(
    fc.asyncProperty(
      fc.array(odd, { maxLength: 12 }),
      fc.array(fc.constantFrom(0, 10_000), { minLength: 1, maxLength: 4 }),
      fc.integer({ min: 1, max: 12 }),
      fc.constantFrom(null, 26, 27),
      async (script, timeouts, count, code) => {
        const dataDir = folder();
        await letters(dataDir, numbered(count), { codes: [26, 27] });
        const refused = numbered(count).filter((_, n) => n % 5 === 4);
        let strict = true;
        const refuse = (row: string) => strict && refused.includes(row) ? "not now" : null;
        await against({ refuse }, async (collector) => {
          collector.misbehave(...script);
          for (const timeoutMs of timeouts) {
            await replay(dataDir, collector.url, { timeoutMs, code });
          }
          // Told to go on until it is done.
          strict = false;
          for (let runs = 0; runs < 20; runs++) {
            if ((await replay(dataDir, collector.url)).code === 0) break;
          }
          assert.deepEqual(collector.stored.toSorted(), numbered(count).toSorted());
          assert.deepEqual(namesIn(dataDir), []);
        });
        removeDir(dataDir);
      },
    ),
    { numRuns: 100 },
  );
});
