/**
 * Rows of an outbox are stored once, while an application writes and rolls back: the collector dies at steps
 * that it takes on disk and between its sync and the database's COMMIT, answers of the database are lost, and
 * two collectors share a table.
 *
 * Runs once: the suite of sources and outbox_test.ts have the runtimes.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { type Shishi, startShishi } from "../kit/shishi.ts";
import { startTcpProxy } from "../kit/tcp_proxy.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually, pause } from "../kit/wait.ts";
import {
  mariadbDatabase,
  postgresDatabase,
  sqliteDatabase,
  type TestDatabase,
} from "../sources/outbox_kit.ts";
import { crashBinary } from "./binary.ts";

/** As in points_test.ts: what the disk was asked, which time, and where in it the process dies. */
const POINTS = [
  "write:5:half",
  "sync:4:before",
  "sync:5:after",
  "write:8:after",
  "sync:9:after",
  "read:2:before",
];

const COLUMNS = {
  postgres: "id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, payload json",
  mysql: "id bigint AUTO_INCREMENT PRIMARY KEY, payload longtext",
  sqlite: "id INTEGER PRIMARY KEY AUTOINCREMENT, payload TEXT",
};
const DATABASES = {
  postgres: postgresDatabase,
  mysql: mariadbDatabase,
  sqlite: () => Promise.resolve(sqliteDatabase("wal")),
};

/** An application: transactions of a few rows, of which one in four is rolled back. */
class Application {
  readonly committed: number[] = [];
  #next = 0;
  #stopped = false;
  readonly #work: Promise<void>;

  constructor(readonly database: TestDatabase, readonly outbox: string) {
    this.#work = this.#run();
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      const rows = Array.from({ length: 1 + this.#next % 13 }, () => this.#next++);
      const values = rows.map((n) => `('{"n":${n}}')`).join(", ");
      const writer = await this.database.begin();
      await writer.sql(`INSERT INTO ${this.outbox} (payload) VALUES ${values}`);
      const how = rows[0]! % 4 === 3 ? "ROLLBACK" : "COMMIT";
      await writer.end(how);
      if (how === "COMMIT") this.committed.push(...rows);
      await pause(10);
    }
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#work;
  }
}

describe("rows of an outbox, each once", () => {
  let clickhouse: ClickHouse;
  let tables = 0;
  before(async () => {
    clickhouse = await startClickHouse();
  });
  after(() => clickhouse.close());

  async function world(kind: keyof typeof COLUMNS) {
    const table = `outbox_${++tables}`;
    const database = await DATABASES[kind]();
    await database.sql(`CREATE TABLE ${table} (${COLUMNS[kind]})`);
    await clickhouse.query(
      `CREATE TABLE ${table} (n UInt64) ENGINE = MergeTree ORDER BY n
       SETTINGS non_replicated_deduplication_window = 10000`,
    );
    return { table, database, application: new Application(database, table) };
  }

  const start = (source: string, dataDir: string, killAt = "", id = "a") =>
    startShishi({
      binary: crashBinary(),
      env: { KILL_AT: killAt },
      args: [
        ...["--clickhouse-url", clickhouse.url, "--data-dir", dataDir, "--id", id],
        ...["--flush-interval", "50ms", "--source", source],
      ],
    });

  /** Everything that was committed is in ClickHouse, once, and nothing else; the outbox is empty. */
  async function isWhole(
    { table, database, application }: Awaited<ReturnType<typeof world>>,
    dead = "",
  ): Promise<void> {
    await application.stop();
    await eventually(async () => {
      assert.deepEqual(await database.sql(`SELECT count(*) FROM ${table}`), [["0"]]);
    }, { withinMs: 30_000, everyMs: 100 });
    const wanted = application.committed.toSorted((a, b) => a - b);
    await eventually(async () => {
      const found = await clickhouse.query(`SELECT n FROM ${table} ORDER BY n`);
      assert.deepEqual(found.split("\n").filter(Boolean).map(Number), wanted, dead);
    }, { withinMs: 30_000, everyMs: 200 });
    assert.ok(wanted.length > 100, `only ${wanted.length} rows`);
  }

  /** Until it has taken rows, so that there is something to lose. */
  const took = (shishi: Shishi) =>
    eventually(async () => assert.ok((await shishi.status()).ledger.received > 0), {
      withinMs: 15_000,
    });

  for (const kind of ["postgres", "sqlite"] as const) {
    test(`${kind}: the collector dies at steps on disk and at any time`, {
      timeout: 120_000,
    }, async () => {
      const made = await world(kind);
      const dir = tempDir("outbox");
      const source = made.database.url(made.table, `&table=${made.table}&prefetch=40`);
      const begun: Shishi[] = [];
      try {
        for (const point of kind === "postgres" ? POINTS : POINTS.slice(0, 2)) {
          const shishi = await start(source, dir, point).catch((error: Error) => {
            assert.match(error.message, /it ended/);
            return null;
          });
          if (shishi === null) continue;
          begun.push(shishi);
          // Some steps are taken only when much is held.
          await Promise.race([shishi.exited, pause(1_000)]);
          await shishi.kill();
        }
        for (let round = 0; round < 3; round++) {
          const shishi = await start(source, dir);
          begun.push(shishi);
          await took(shishi);
          await pause(21 * round);
          await shishi.kill();
        }
        begun.push(await start(source, dir));
        await isWhole(made);
      } finally {
        await made.application.stop();
        for (const shishi of begun) await shishi.close();
        await made.database.close();
        removeDir(dir);
      }
    });
  }

  test("answers of the database are lost, COMMIT's too", { timeout: 120_000 }, async () => {
    const made = await world("postgres");
    const port = Number(/:(\d+)\//.exec(made.database.url("x"))![1]);
    const proxy = await startTcpProxy(port);
    const dir = tempDir("outbox");
    const source = made.database.url(made.table, `&table=${made.table}&prefetch=40`)
      .replace(`:${port}/`, `:${proxy.port}/`);
    const shishi = await start(source, dir);
    try {
      await took(shishi);
      for (let round = 0; round < 4; round++) {
        // Another answer each time; the pauses of the source grow with each loss.
        await pause(17 * round);
        proxy.cutAnswers(1);
        await eventually(() => assert.equal(proxy.answersToCut(), 0), { withinMs: 20_000 });
      }
      await isWhole(made);
    } finally {
      await made.application.stop();
      await shishi.close();
      await proxy.close();
      await made.database.close();
      removeDir(dir);
    }
  });

  test("two collectors share an outbox, come and go", { timeout: 120_000 }, async () => {
    const made = await world("mysql");
    const dirs = [tempDir("outbox"), tempDir("outbox")];
    const source = made.database.url(made.table, `&table=${made.table}&prefetch=50`);
    const begun: Shishi[] = [];
    const begin = async (at: number) => {
      const shishi = await start(source, dirs[at]!, "", `c${at}`);
      begun.push(shishi);
      const { length } = made.application.committed;
      await eventually(async () => {
        assert.equal((await shishi.status()).sources[0].state, "running");
        assert.ok(made.application.committed.length > length + 50);
      }, { withinMs: 20_000 });
      return shishi;
    };
    try {
      const first = await begin(0);
      const second = await begin(1);
      first.signal("SIGTERM");
      assert.equal((await first.exited).code, 0);
      await begin(0);
      second.signal("SIGTERM");
      assert.equal((await second.exited).code, 0);
      await isWhole(made);
    } finally {
      await made.application.stop();
      for (const shishi of begun) await shishi.close();
      await made.database.close();
      for (const dir of dirs) removeDir(dir);
    }
  });
});
