/**
 * A batch goes in pieces, and the collector is killed in the middle: before an INSERT reaches ClickHouse, or
 * after it is stored. The next one goes on under the same tokens, also where nothing limits an INSERT any
 * more: each row is there once.
 * Runs once: the collector is the binary.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type LosingProxy, startLosingProxy } from "../kit/losing_proxy.ts";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { type Shishi, startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { crashBinary } from "./binary.ts";
import { drained } from "./drained.ts";

const ROWS = 1000;
/** Of rows that are to take memory. */
const PAD = 2000;
/** INSERTs of one batch at which it is killed. */
const MOST = 4;

/** What makes pieces of a batch, while it lasts. */
interface Cause {
  readonly name: string;
  readonly table: string;
  readonly settings?: () => Record<string, string>;
  /** As many rows pass a proxy. */
  readonly most?: number;
  readonly bad?: (id: number) => boolean;
  readonly args?: readonly string[];
  /** Characters beside the number in each row; few unless given. */
  readonly pad?: number;
}

const PLAIN = "(id UInt32, pad String) ENGINE = MergeTree ORDER BY id";
/** Found before the tests: enough for some rows, not for all. */
let memory = 0;

const CAUSES: readonly Cause[] = [
  { name: "too large for a proxy (413)", table: PLAIN, most: 300 },
  {
    name: "too many partitions (252)",
    table: "(id UInt32, pad String) ENGINE = MergeTree ORDER BY id PARTITION BY intDiv(id, 10)",
    settings: () => ({ max_partitions_per_insert_block: "30" }),
  },
  {
    name: "too much memory (241)",
    table: PLAIN,
    settings: () => ({ max_memory_usage: String(memory) }),
    pad: PAD,
  },
  {
    name: "bad rows",
    table:
      "(id UInt32, pad String, CONSTRAINT c CHECK id % 250 != 7) ENGINE = MergeTree ORDER BY id",
    bad: (id) => id % 250 === 7,
  },
];

describe("a batch that goes in pieces, killed", () => {
  let clickhouse: ClickHouse;
  let proxy: LosingProxy;
  before(async () => {
    clickhouse = await startClickHouse();
    proxy = await startLosingProxy(clickhouse.url);
    memory = await memoryForHalf(clickhouse);
  });
  after(async () => {
    await proxy.close();
    await clickhouse.close();
  });

  const start = (database: string, dataDir: string, ...more: string[]) =>
    startShishi({
      binary: crashBinary(),
      args: [
        ...["--clickhouse-url", `${proxy.url}/${database}`, "--data-dir", dataDir],
        ...["--tables", "t", "--type-check=off", "--compress", "none"],
        ...["--flush-interval", "20ms", ...more],
      ],
    });

  for (const [at, cause] of CAUSES.entries()) {
    // Each INSERT has one of the two fates, which take turns.
    for (const [fate, first] of [["refuse", 1], ["lose", 2]] as const) {
      test(`${cause.name}, at every other INSERT: ${fate}`, { timeout: 120_000 }, async () => {
        let nth: number = first;
        while (nth <= MOST && await killedAt(`pieces_${at}_${fate}_${nth}`, cause, fate, nth)) {
          nth += 2;
        }
        assert.ok(nth > 3, `${nth - 1} INSERTs are no pieces`);
      });
    }
  }

  /** @returns false: there were not so many INSERTs. */
  async function killedAt(
    database: string,
    cause: Cause,
    fate: "refuse" | "lose",
    nth: number,
  ): Promise<boolean> {
    await clickhouse.query(`CREATE DATABASE ${database}`);
    await clickhouse.query(
      `CREATE TABLE ${database}.t ${cause.table} SETTINGS non_replicated_deduplication_window = 1000`,
    );
    const dataDir = tempDir("pieces");
    let shishi: Shishi = await start(database, dataDir);
    try {
      const killed = Promise.withResolvers<void>();
      let inserts = 0;
      Object.assign(proxy.settings, cause.settings?.());
      const limited = (rows: string) =>
        cause.most !== undefined && rows.split("\n").length - 1 > cause.most;
      proxy.fateOf = ({ rows }) => {
        if (++inserts < nth) return limited(rows) ? "large" : "pass";
        if (inserts === nth) {
          const dying = shishi;
          // After ClickHouse has it, where it gets it.
          setTimeout(() => void dying.kill().then(killed.resolve), fate === "lose" ? 300 : 0);
          return limited(rows) ? "large" : fate;
        }
        return "refuse";
      };
      const answer = await shishi.post(
        Array.from({ length: ROWS }, (_, id) => ({ id, pad: "x".repeat(cause.pad ?? 20) })),
        { path: "/events/t" },
      );
      assert.equal(answer.status, 202, answer.text);
      const living = shishi;
      const ended = drained(living).then(() => true, () => false);
      if (await Promise.race([killed.promise.then(() => false), ended])) return false;
      await living.close();
      for (const name of Object.keys(proxy.settings)) delete proxy.settings[name];
      proxy.fateOf = () => "pass";
      shishi = await start(database, dataDir);
      await drained(shishi);
      const bad = Array.from({ length: ROWS }, (_, id) => id).filter(cause.bad ?? (() => false));
      assert.equal((await shishi.status()).ledger.dead, bad.length);
      assert.equal(
        await clickhouse.query(`SELECT count(), uniqExact(id) FROM ${database}.t`),
        `${ROWS - bad.length}\t${ROWS - bad.length}`,
        `killed at INSERT ${nth} (${fate})`,
      );
      return true;
    } finally {
      for (const name of Object.keys(proxy.settings)) delete proxy.settings[name];
      proxy.fateOf = () => "pass";
      await shishi.close();
      removeDir(dataDir);
    }
  }
});

/** Memory with which 300 of the rows pass in one INSERT, and not all of them. */
async function memoryForHalf(clickhouse: ClickHouse): Promise<number> {
  await clickhouse.query(`CREATE TABLE memory ${PLAIN}`);
  const insert = async (rows: number, memory: number) => {
    const url = new URL(clickhouse.url);
    url.searchParams.set("query", "INSERT INTO memory FORMAT JSONEachRow");
    url.searchParams.set("max_memory_usage", String(memory));
    url.searchParams.set("async_insert", "0");
    const body = Array.from(
      { length: rows },
      (_, id) => JSON.stringify({ id, pad: "x".repeat(PAD) }),
    ).join("\n");
    const answer = await fetch(url, { method: "POST", body });
    await answer.text();
    return answer.ok;
  };
  let [little, enough] = [4_000_000, 100_000_000];
  assert.ok(await insert(300, enough), "300 rows never pass");
  while (enough - little > 500_000) {
    const between = (little + enough) / 2;
    if (await insert(300, between)) enough = between;
    else little = between;
  }
  // Some more, for what it takes differs a little.
  enough = Math.ceil(enough) + 1_000_000;
  assert.equal(await insert(ROWS, enough), false, "all of them pass as well");
  return enough;
}
