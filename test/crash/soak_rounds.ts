/**
 * The soak by rounds: the collector is killed (SIGKILL) at a random moment and started again, over and
 * over, under load from many clients over six tables, some of it under keys, while ClickHouse is killed
 * and started at its own pace. Every hundred rounds, and in the end: each acknowledged row is in ClickHouse
 * exactly once, nothing that was refused is, and no key has been forgotten.
 *
 * Every second life is a build with journal files of 64 KiB, so that files are recycled, and keys and
 * batches moved, many times over.
 */
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { freePort } from "../kit/free_port.ts";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { pause } from "../kit/wait.ts";
import { crashBinary } from "./binary.ts";
import { drained } from "./drained.ts";
import { Collector } from "./soak_collector.ts";
import { KeyedCrowd, TABLES, type Write } from "./soak_keyed.ts";
import { Told } from "./told.ts";

/** Blocks that ClickHouse remembers: more than are sent while one of them waits to be sent again. */
const WINDOW = "SETTINGS non_replicated_deduplication_window = 20000";
const CLIENTS = 12;
const ROUNDS_A_CHECK = 100;
/** One of so many keys is asked about again in the end. */
const KEYS_AN_OLD_ONE = 50;
const TELL_MS = 5_000;
const DRAINED_MS = 120_000;

export interface SoakRounds {
  readonly rounds: number;
  readonly seed: number;
  readonly random: () => number;
}

/** @returns the exit code. */
export async function soakRounds(options: SoakRounds): Promise<number> {
  const { rounds, seed } = options;
  console.log(`soak: seed ${seed}, ${rounds} rounds of kill -9 over ${TABLES.length} tables`);
  const clickhouse = await startClickHouse();
  const dataDir = tempDir("soak");
  const run = new Rounds(options, clickhouse, dataDir, `127.0.0.1:${await freePort()}`);
  const telling = setInterval(() => run.tell(), TELL_MS);
  let failed: unknown = null;
  try {
    await run.run();
  } catch (problem) {
    failed = problem;
  }
  clearInterval(telling);
  await run.close();
  await clickhouse.close();
  if (failed === null) removeDir(dataDir);
  else {
    console.error(run.stderr.slice(-4_000));
    console.error(`soak: FAILED with --seed ${seed}; the data-dir is kept: ${dataDir}`, failed);
  }
  return failed === null ? 0 : 1;
}

class Rounds {
  stderr = "";
  readonly #beganMs = performance.now();
  readonly #told = new Map(TABLES.map((table) => [table as string, new Told()]));
  readonly #keyed = { taken: 0, inDoubt: 0, repeated: 0, otherwise: 0 };
  readonly #oldKeys: Write[] = [];
  readonly #collector: Collector;
  readonly #binaries = [true, crashBinary()];
  #crowd: KeyedCrowd | null = null;
  #round = 0;
  #clickhouseKills = 0;
  #checkedRows = 0;

  constructor(
    readonly options: SoakRounds,
    readonly clickhouse: ClickHouse,
    readonly dataDir: string,
    readonly listen: string,
  ) {
    this.#collector = new Collector([
      ...["--clickhouse-url", clickhouse.url, "--listen", listen, "--data-dir", dataDir],
      ...["--tables", TABLES.slice(1).join(), "--flush-interval", "100ms"],
      ...["--max-block-size", "500", "--backlog-bytes", "1MiB", "--insert-timeout", "3s"],
    ]);
  }

  async run(): Promise<void> {
    await createTables(this.clickhouse);
    await this.#start();
    while (this.#round < this.options.rounds) {
      await this.#some(Math.min(ROUNDS_A_CHECK, this.options.rounds - this.#round));
    }
    await this.#assertOldKeys();
    await this.#collector.terminate();
    this.tell();
    const quarantined = readdirSync(join(this.dataDir, "quarantine")).length;
    console.log(
      `soak: all is there, once: ${this.#round} rounds, ${this.#checkedRows} rows checked, ` +
        `${quarantined} torn pieces in quarantine, seed ${this.options.seed}, ` +
        `${this.#seconds()} s`,
    );
  }

  tell(): void {
    const crowd = this.#crowd;
    const { scrapes, mostHeld } = this.#collector;
    console.log(
      `soak: ${this.#seconds()} s, round ${this.#round}, ClickHouse killed ${this.#clickhouseKills} ` +
        `times, ${this.#checkedRows} rows checked, ${
          crowd?.acknowledged ?? 0
        } acknowledged since, ` +
        `keys ${JSON.stringify(sums(this.#keyed, crowd?.keyed))}, ` +
        `statuses ${JSON.stringify([...crowd?.statuses ?? []])}, ` +
        `most held ${mostHeld}, scrapes ${scrapes}`,
    );
  }

  async close(): Promise<void> {
    this.#crowd?.abandon();
    this.stderr ||= this.#collector.stderr();
    await this.#collector.close();
  }

  #seconds(): number {
    return Math.round((performance.now() - this.#beganMs) / 1000);
  }

  #start(): Promise<void> {
    return this.#collector.start(this.#binaries[this.#round % 2]);
  }

  /** Rounds, and then a look at all that came of them. */
  async #some(rounds: number): Promise<void> {
    const { random } = this.options;
    const crowd = this.#crowd = new KeyedCrowd({
      url: `http://${this.listen}`,
      clients: CLIENTS,
      random,
    });
    let over = false;
    const coming = this.#comesAndGoes(() => over);
    try {
      for (let round = 0; round < rounds && crowd.broken === null; round++) {
        await pause(random() < 0.15 ? random() * 30 : random() * 400);
        if (this.#collector.broken !== null) throw this.#collector.broken;
        await this.#collector.kill();
        this.#round++;
        await this.#start();
      }
    } finally {
      over = true;
      await coming;
    }
    await crowd.stop();
    await drained(this.#collector.running, DRAINED_MS);
    if (this.#collector.broken !== null) throw this.#collector.broken;
    await this.#check(crowd);
  }

  /** ClickHouse. */
  async #comesAndGoes(over: () => boolean): Promise<void> {
    const { random } = this.options;
    while (!over()) {
      await pause(500 + random() * 3_000);
      await this.clickhouse.kill();
      this.#clickhouseKills++;
      await pause(random() * 2_500);
      await this.clickhouse.start();
    }
  }

  async #check(crowd: KeyedCrowd): Promise<void> {
    for (const { table, ids, fate } of crowd.writes) {
      assert.notEqual(fate, "open");
      for (const id of ids) this.#told.get(table)![fate as "acknowledged"].add(id);
    }
    let rows = 0;
    for (const [table, told] of this.#told) rows += await told.assertOnce(this.clickhouse, table);
    this.#checkedRows = rows;
    const keyed = crowd.writes.filter(({ key }) => key !== null);
    this.#oldKeys.push(...keyed.filter((_, at) => at % KEYS_AN_OLD_ONE === 0));
    Object.assign(this.#keyed, sums(this.#keyed, crowd.keyed));
    this.#crowd = null;
  }

  async #assertOldKeys(): Promise<void> {
    const crowd = new KeyedCrowd({
      url: `http://${this.listen}`,
      clients: 0,
      random: this.options.random,
    });
    for (const write of this.#oldKeys) await crowd.assertKnown(write);
    console.log(`soak: ${this.#oldKeys.length} keys of all lives are known in the end`);
  }
}

async function createTables(clickhouse: ClickHouse): Promise<void> {
  const engine = `ENGINE = MergeTree ORDER BY id ${WINDOW}`;
  await clickhouse.query(
    "CREATE TABLE analytics_events (id UUID, timestamp DateTime64(3, 'UTC'), " +
      "event_type LowCardinality(String), user_id String, " +
      `properties Map(LowCardinality(String), String)) ${engine}`,
  );
  for (const table of TABLES.slice(1)) {
    await clickhouse.query(`CREATE TABLE ${table} (id UUID, n UInt32, text String) ${engine}`);
  }
}

function sums<T extends Readonly<Record<string, number>>>(some: T, more: T | undefined): T {
  const added = Object.entries(some).map(([name, count]) => [name, count + (more?.[name] ?? 0)]);
  return Object.fromEntries(added);
}
