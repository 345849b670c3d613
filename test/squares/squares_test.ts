/**
 * The example that stands at Shishi's beginning: a producer sends numbers, workers square them, a collector adds up
 * the squares, and one word on a channel ends workers and collector. The collector is Shishi; the sum is a query.
 * Runs once: the programs speak to the brokers by libraries that are none of Shishi's code.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { oneClickHouse } from "../kit/one_clickhouse.ts";
import { startKafka, startRedis } from "../kit/servers.ts";
import { runShishi, startShishi } from "../kit/shishi.ts";
import { eventually } from "../kit/wait.ts";
import { joinKafka } from "../sources/kafka_kit.ts";
import { EXIT_CHANNEL, NUMBERS, SQUARES } from "./work.ts";

const NUMBERS_UP_TO = 200;
const SUM = NUMBERS_UP_TO * (NUMBERS_UP_TO + 1) * (2 * NUMBERS_UP_TO + 1) / 6;

const clickhouse = oneClickHouse();

interface Program {
  readonly process: ChildProcess;
  readonly said: () => string;
  /** Its exit code. */
  readonly ended: Promise<number | null>;
}

function start(name: string, ...args: string[]): Program {
  const file = fileURLToPath(new URL(name, import.meta.url));
  const before = process.versions.deno === undefined ? [] : ["run", "-A", "-q"];
  const child = spawn(process.execPath, [...before, file, ...args], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let said = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => said += text);
  const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
  return { process: child, said: () => said, ended };
}

/** @param url of the broker. @param source, @param exit of Shishi. */
async function squares(url: string, source: string, exit: string): Promise<void> {
  await clickhouse.query("CREATE OR REPLACE TABLE squares (n UInt32, square UInt64) ORDER BY n");
  const workers = [start("worker.ts", url), start("worker.ts", url)];
  const shishi = await startShishi({
    args: [
      ...["--clickhouse-url", clickhouse.url, "--flush-interval", "50ms"],
      ...["--source", source, "--exit", exit],
    ],
  });
  try {
    await eventually(async () => {
      assert.deepEqual(workers.map(({ said }) => said()), ["ready\n", "ready\n"]);
      assert.match(shishi.stderr(), /an exit channel is listened to/);
      assert.equal((await shishi.status()).sources[0].state, "running");
    }, { withinMs: 30_000 });
    assert.equal(await start("producer.ts", url, "1", String(NUMBERS_UP_TO)).ended, 0);
    // Each number once, whatever came twice.
    const sum = "SELECT sum(square), count() FROM (SELECT DISTINCT n, square FROM squares)";
    await eventually(
      async () => assert.equal(await clickhouse.query(sum), `${SUM}\t${NUMBERS_UP_TO}`),
      { withinMs: 30_000 },
    );
    const stop = await runShishi(["stop", "--via", exit]);
    assert.equal(stop.code, 0, stop.stderr);
    assert.deepEqual(await Promise.all(workers.map(({ ended }) => ended)), [0, 0]);
    for (const { said } of workers) assert.match(said(), /told to exit/);
    assert.equal((await shishi.exited).code, 0, shishi.stderr());
  } finally {
    for (const { process } of workers) process.kill("SIGKILL");
    await shishi.close();
  }
}

test("numbers are squared and added up over Redis, until Exit", async () => {
  const redis = await startRedis("appendfsync everysec");
  try {
    const source = `${redis.url}?list=${SQUARES}&table=squares`;
    await squares(redis.url, source, `${redis.url}?channel=${EXIT_CHANNEL}`);
  } finally {
    await redis.close();
  }
});

test("numbers are squared and added up over Kafka, until Exit", async () => {
  const kafka = await startKafka();
  const others = joinKafka(kafka);
  try {
    for (const topic of [NUMBERS, SQUARES, EXIT_CHANNEL]) await others.makeTopic(topic, 2);
    await squares(
      kafka.url,
      `${kafka.url}/${SQUARES}?table=squares`,
      `${kafka.url}/${EXIT_CHANNEL}`,
    );
  } finally {
    await others.close();
    await kafka.close();
  }
});
