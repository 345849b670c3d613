/**
 * JetStream to ClickHouse through the collector as users run it: killed over and over, cut, stopped.
 * Runs once: test/sources/ has both runtimes.
 */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import process from "node:process";
import { after, before, test } from "node:test";
import { oneClickHouse } from "../kit/one_clickhouse.ts";
import type { Nats } from "../kit/servers.ts";
import { BUILDS, runShishi, type Shishi, startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir, tempFile } from "../kit/temp.ts";
import { eventually, pause } from "../kit/wait.ts";
import { asAdmin, startJetStream } from "../sources/nats_kit.ts";
import { DEDUPLICATED } from "./rows.ts";

/** `user` is the collector's; with it no acknowledgement comes through unless it may send them. */
const rights = (acknowledge: boolean) =>
  `authorization { users: [
    { user: "admin", password: "p" },
    { user: "user", password: "p", permissions: { publish: { ${
    acknowledge ? "" : 'deny: "$JS.ACK.>"'
  } } } } ] }`;
const ADMIN = { user: "admin", pass: "p" };

const clickhouse = oneClickHouse();
let nats: Nats;
let authFile: string;
before(async () => {
  authFile = tempFile("auth.conf", rights(true));
  // The server looks beside its own configuration, which lies in another folder beside this one.
  nats = await startJetStream(`include "../${basename(dirname(authFile))}/auth.conf"`);
});
after(async () => {
  await nats.close();
  removeDir(dirname(authFile));
});

const USER = { user: "user", pass: "p" };

/** Resolves when the server goes by it: it reads its file some time after the signal. */
async function may(acknowledge: boolean): Promise<void> {
  writeFileSync(authFile, rights(acknowledge));
  process.kill(nats.pid, "SIGHUP");
  await eventually(async () => assert.equal(await doesAcknowledge(), acknowledge), {
    withinMs: 20_000,
  });
}

/** Whether what `user` sends as an acknowledgement arrives. */
function doesAcknowledge(): Promise<boolean> {
  return asAdmin(nats, async (admin) => {
    let arrived = false;
    admin.subscribe("$JS.ACK.probe", { callback: () => arrived = true });
    await admin.flush();
    await asAdmin(nats, async (user) => {
      user.publish("$JS.ACK.probe");
      await user.flush();
    }, USER);
    await admin.flush();
    return arrived;
  }, ADMIN);
}

/** Messages of a round. */
const EACH = 1_000;

/** In this order, with pauses in which collectors come and go. */
function publish(stream: string, from: number, to: number): Promise<void> {
  return asAdmin(nats, async (connection) => {
    const js = connection.jetstream();
    for (let n = from; n <= to; n += 50) {
      await Promise.all(
        Array.from({ length: 50 }, (_, at) => js.publish(`${stream}.a`, `{"n":${n + at}}`)),
      );
      await pause(5);
    }
  }, ADMIN);
}

async function stored(table: string): Promise<{ rows: number; different: number }> {
  const found = await clickhouse.query(`SELECT count(), uniqExact(n) FROM ${table}`);
  const [rows, different] = found.split("\t").map(Number);
  return { rows: rows!, different: different! };
}

const makeStream = (name: string) =>
  asAdmin(nats, (_, api) => api.streams.add({ name, subjects: [`${name}.>`] }), ADMIN);

for (const binary of BUILDS) {
  const how = binary ? "the binary" : "from source";

  test(`${how}: a stream through three kill -9 loses nothing, and repeats nothing`, async () => {
    const table = `stream_${binary}`;
    const dataDir = tempDir("data");
    await clickhouse.query(`CREATE TABLE ${table} (n UInt32) ${DEDUPLICATED}`);
    await makeStream(table);
    const source = `nats://user@127.0.0.1:${nats.natsPort}?stream=${table}&table=${table}` +
      `&ack-wait=1s&password-file=${tempFile("password", "p\n")}`;
    const args = [
      ...["--clickhouse-url", clickhouse.url, "--data-dir", dataDir, "--id", "edge"],
      ...["--source", source, "--flush-interval", "50ms"],
    ];
    let shishi: Shishi | null = null;
    try {
      for (let round = 0; round < 3; round++) {
        const first = round * EACH + 1;
        const publishing = publish(table, first, first + EACH - 101);
        shishi = await startShishi({ args, binary });
        const status = async () => (await shishi!.status()).sources[0];
        await eventually(async () => assert.ok((await status()).rows > 100), {
          withinMs: 20_000,
          everyMs: 5,
        });
        // From here on nothing is acknowledged: what is synced comes again.
        await may(false);
        const { repeated } = await status();
        await publish(table, first + EACH - 100, first + EACH - 1);
        await eventually(async () => assert.ok((await status()).repeated > repeated), {
          withinMs: 20_000,
        });
        await shishi.kill();
        await may(true);
        await publishing;
      }
      shishi = await startShishi({ args, binary });
      await eventually(async () => assert.equal((await stored(table)).different, 3 * EACH), {
        withinMs: 30_000,
      });
      await eventually(async () => {
        const info = await asAdmin(nats, (_, api) => api.consumers.info(table, "shishi"), ADMIN);
        assert.deepEqual([info.num_pending, info.num_ack_pending], [0, 0]);
      }, { withinMs: 30_000 });
      shishi.signal("SIGTERM");
      assert.equal((await shishi.exited).code, 0, shishi.stderr());
      assert.equal((await stored(table)).rows, 3 * EACH);
    } finally {
      await shishi?.close();
      removeDir(dataDir);
      await may(true);
    }
  });

  test(`${how}: what is known of a message becomes columns; check, and what is no row`, async () => {
    const table = `known_${binary}`;
    await clickhouse.query(
      `CREATE TABLE ${table} (n UInt32, at DateTime64(3), _subject String, seq UInt64) ${DEDUPLICATED}`,
    );
    await makeStream(table);
    await asAdmin(nats, async (connection) => {
      const js = connection.jetstream();
      await js.publish(`${table}.bad`, '{"n":"many"}');
      await js.publish(`${table}.good`, '{"n":7}');
    }, ADMIN);
    const url = `nats://user:p@127.0.0.1:${nats.natsPort}?stream=${table}&table=${table}` +
      "&meta=_subject,_sequence:seq,_timestamp:at";
    const env = { SHISHI_SOURCES: url, SHISHI_CLICKHOUSE_URL: clickhouse.url };
    const checked = await runShishi(["check"], { env, binary });
    assert.match(checked.stdout, /✓ source nats:\w+ \(nats:.*consumer shishi will be made/);
    const shishi = await startShishi({ binary, args: ["--flush-interval=50ms"], env });
    try {
      await eventually(async () => {
        const rows = await clickhouse.query(
          `SELECT n, _subject, seq FROM ${table} FORMAT JSONEachRow`,
        );
        assert.deepEqual(JSON.parse(rows), { n: 7, _subject: `${table}.good`, seq: 2 });
      }, { withinMs: 20_000 });
      const near = `SELECT abs(dateDiff('second', at, now64(3))) < 600 FROM ${table}`;
      assert.equal(await clickhouse.query(near), "1");
      const { json } = await shishi.get(`/api/dead?table=${table}`);
      assert.match(JSON.stringify(json), new RegExp(`nats:${table}@1`));
      const [source] = (await shishi.status()).sources;
      assert.deepEqual([source.state, source.lag, source.dead], ["running", 0, 1]);
    } finally {
      await shishi.close();
    }
  });

  test(`${how}: what core NATS brings while there is no room is dropped, and counted`, async () => {
    const at = `nats://user:p@127.0.0.1:${nats.natsPort}`;
    const subject = `core_${binary}`;
    const env = {
      SHISHI_SOURCES: `${at}?subject=${subject}&prefetch=5`,
      SHISHI_CLICKHOUSE_URL: clickhouse.url,
      SHISHI_NATS_URL: `nats://127.0.0.1:${nats.natsPort}`,
      SHISHI_NATS_USER: "admin",
      SHISHI_NATS_PASSWORD: "p",
    };
    const say = (count: number) =>
      asAdmin(nats, async (connection) => {
        for (let n = 0; n < count; n++) connection.publish(subject, `{"eventType":"${subject}"}`);
        await connection.flush();
      }, ADMIN);
    const shishi = await startShishi({ binary, args: [`--id=core-${binary}`], env });
    const order = (command: string) =>
      runShishi([command, "--target", `default.core-${binary}`], { env, binary });
    const messages = async (result: string) => {
      const { text } = await shishi.get("/metrics");
      const line = `shishi_source_messages_total\\{source="nats:${subject}",result="${result}"\\}`;
      return Number(new RegExp(`${line} (\\d+)`).exec(text)?.[1] ?? 0);
    };
    try {
      await eventually(async () => {
        assert.equal((await shishi.status()).sources[0].state, "running");
      }, { withinMs: 20_000 });
      assert.equal((await order("pause")).code, 0);
      await say(50);
      await eventually(async () => assert.equal(await messages("dropped"), 45), {
        withinMs: 20_000,
      });
      assert.equal((await order("resume")).code, 0);
      await eventually(async () => assert.equal(await messages("rows"), 5), { withinMs: 20_000 });
      await say(5);
      await eventually(async () => assert.equal(await messages("rows"), 10), { withinMs: 20_000 });
      assert.equal(await messages("dropped"), 45);
    } finally {
      await shishi.close();
    }
  });
}
