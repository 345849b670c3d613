/** SIGUSR2 with `--workers`: whoever is killed in the middle of it, what was acknowledged is stored once. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { startFakeInflux } from "../kit/fake_influx.ts";
import { storedIds } from "../kit/load.ts";
import { createMemoryInflux } from "../kit/memory_influx.ts";
import { oneClickHouse } from "../kit/one_clickhouse.ts";
import { openRaw, rawRequest } from "../kit/raw_http.ts";
import { startNats } from "../kit/servers.ts";
import { type Shishi, startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { asker } from "../remote/kit.ts";
import { says } from "./around.ts";
import { bad, createPlain, DEDUPLICATED, good, refusals } from "./rows.ts";
import {
  ask,
  closeAll,
  count,
  ended,
  followers,
  NOWHERE,
  post,
  settled,
  signal,
  soon,
  statusOf,
} from "./upgrading.ts";

const clickhouse = oneClickHouse();

/**
 * In the middle of being followed: a connection that was used and stays open holds it up. Whoever is
 * followed must have received something, which tells the two apart.
 */
async function follow(shishi: Shishi): Promise<{ goOn(): Promise<void> }> {
  const idle = await openRaw(shishi.url);
  idle.send(rawRequest("GET", "/healthz"));
  await idle.answer();
  shishi.signal("SIGUSR2");
  await soon(async () => {
    assert.equal(count(shishi, /^listening/), 2, shishi.stderr());
    // For a moment they share.
    for (let n = 0; n < 6; n++) assert.equal((await statusOf(shishi)).ledger.received, 0);
  });
  return { goOn: () => idle.close() };
}

function workerPid(dataDir: string, number: number): number {
  return JSON.parse(readFileSync(join(dataDir, `worker-${number}`, "lock"), "utf8")).pid;
}

interface Killed {
  pids(shishi: Shishi, dataDir: string): readonly number[];
  /** What becomes of the upgrade; who serves after it. */
  then(shishi: Shishi, goOn: () => Promise<void>): Promise<number>;
}

const KILLED: Record<string, Killed> = {
  "the new supervisor": {
    pids: (shishi) => followers(shishi),
    async then(shishi, goOn) {
      await soon(() => assert.equal(count(shishi, /^not followed.*SIGKILL/), 1));
      await goOn();
      return shishi.pid;
    },
  },
  "a worker of either": {
    pids: (_, dataDir) => [workerPid(dataDir, 1), workerPid(dataDir, 3)],
    async then(shishi, goOn) {
      await soon(() => assert.equal(count(shishi, /^a worker runs again/), 2, shishi.stderr()));
      await goOn();
      await ended(shishi, 1);
      return followers(shishi)[0]!;
    },
  },
  "the old supervisor": {
    pids: (shishi) => [shishi.pid],
    async then(shishi) {
      await soon(async () => assert.equal((await statusOf(shishi)).ledger.recovered, 10));
      return followers(shishi)[0]!;
    },
  },
};

for (const [who, { pids, then }] of Object.entries(KILLED)) {
  test(`${who} is killed in the middle of it: who serves then, and who follows that one, finds everything`, async () => {
    const database = who.replaceAll(" ", "_");
    await clickhouse.query(`CREATE DATABASE ${database}`);
    const dataDir = tempDir("upgrade");
    const config = join(dataDir, "shishi.toml");
    writeFileSync(config, 'clickhouse-url = "http://127.0.0.1:1"\n');
    const shishi = await startShishi({
      args: ["--config", config, "--data-dir", dataDir, "--workers=2", "--shutdown-timeout=500ms"],
    });
    const acknowledged = new Set<string>();
    /** @returns how many were taken. */
    const postTen = async () => {
      const before = acknowledged.size;
      for (let n = 0; n < 10; n++) {
        const id = crypto.randomUUID();
        const answer = await post(shishi, { id, eventType: "click" }).catch(() => null);
        if (answer?.status === 202) acknowledged.add(id);
      }
      return acknowledged.size - before;
    };
    try {
      assert.equal(await postTen(), 10);
      const { goOn } = await follow(shishi);
      assert.equal(await postTen(), 10);
      for (const pid of pids(shishi, dataDir)) process.kill(pid, "SIGKILL");
      await postTen();
      const serving = await then(shishi, goOn);
      await settled(shishi);
      assert.equal(await postTen(), 10);

      writeFileSync(config, `clickhouse-url = "${clickhouse.url}/${database}"\n`);
      const starts = followers(shishi).length;
      signal(serving, "SIGUSR2");
      await soon(() => assert.equal(followers(shishi).length, starts + 1, shishi.stderr()));
      await soon(async () => {
        const { ledger, recovering } = await statusOf(shishi);
        assert.deepEqual([recovering, ledger.held], [false, 0], shishi.stderr());
      });
      const stored = await storedIds(clickhouse, `${database}.analytics_events`);
      assert.deepEqual([...stored.values()].filter((times) => times > 1), []);
      assert.deepEqual([...acknowledged].filter((id) => !stored.has(id)), []);
    } finally {
      await closeAll(shishi);
      removeDir(dataDir);
    }
  });
}

test("dead letters of both lie in one place: those of the new workers wait for the old ones", async () => {
  await createPlain(clickhouse, "plain", DEDUPLICATED);
  const shishi = await startShishi({
    args: ["--clickhouse-url", clickhouse.url, "--workers=2", "--tables=plain"],
  });
  const stored = async () =>
    (await clickhouse.query("SELECT count(), uniqExact(n) FROM plain")).trim();
  const postFour = async (from: number) => {
    for (let n = from; n < from + 4; n++) {
      const rows = [good(n), bad(n)].map((row) => JSON.parse(row));
      assert.equal((await ask(shishi, "POST", "/events/plain", rows)).status, 202);
    }
  };
  const books = (stored: number, dead: number, held: number) =>
    soon(async () => {
      const { ledger } = await statusOf(shishi);
      assert.deepEqual([ledger.stored, ledger.dead, ledger.held], [stored, dead, held]);
    });
  try {
    await postFour(0);
    await books(4, 4, 0);
    const { goOn } = await follow(shishi);
    await postFour(4);
    // What is left of their batches is the letters.
    await soon(async () => assert.equal(await stored(), "8\t8"));
    await books(0, 0, 8);
    await goOn();
    await ended(shishi, 1);
    await books(4, 4, 0);
    assert.equal(refusals(shishi).length, 8);
    assert.equal(
      (await clickhouse.query("SELECT count(), uniqExact(n) FROM plain")).trim(),
      "8\t8",
    );
  } finally {
    await closeAll(shishi);
  }
});

test("each of more workers than there were gets its share; too many of them change nothing", async () => {
  const dataDir = tempDir("upgrade");
  const config = join(dataDir, "shishi.toml");
  writeFileSync(config, "workers = 1\n");
  const shishi = await startShishi({
    args: [...NOWHERE, "--config", config, "--data-dir", dataDir],
  });
  try {
    writeFileSync(config, "workers = 5\n");
    shishi.signal("SIGUSR2");
    await soon(() => assert.equal(count(shishi, /^not followed.*exit code 2/), 1));
    assert.match(shishi.stderr(), /workers .*: expected at most concurrency \(4\), got 5/);
    assert.equal((await post(shishi, { eventType: "click" })).status, 202);

    writeFileSync(config, "workers = 2\n");
    shishi.signal("SIGUSR2");
    await ended(shishi, 1);
    for (let n = 0; n < 40; n++) await post(shishi, { eventType: "click" });
    for (const worker of [1, 2]) {
      const spool = join(dataDir, `worker-${worker}`, "spool/analytics_events");
      assert.notEqual(readdirSync(spool).length, 0, `worker ${worker} has rows of its own`);
    }
    await soon(async () => assert.equal((await statusOf(shishi)).ledger.recovered, 1));
  } finally {
    await closeAll(shishi);
    removeDir(dataDir);
  }
});

test("a pause is handed on: nobody who follows, and no worker that is started again, takes an event before a resume", async () => {
  const nats = await startNats();
  const dataDir = tempDir("upgrade");
  const config = join(dataDir, "shishi.toml");
  writeFileSync(config, "workers = 1\n");
  const shishi = await startShishi({
    args: [...NOWHERE, "--config", config, "--data-dir", dataDir, "--nats-url", nats.url],
  });
  const asking = await asker(nats.url);
  const told = async (command: string) => (await asking.ask(`shishi.${command}`).next())["state"];
  const statuses = new Set<number>();
  const ending = new AbortController();
  /** Who dies meanwhile answers nothing. */
  async function knock(): Promise<void> {
    while (!ending.signal.aborted) {
      await post(shishi, { eventType: "b" }).then(({ status }) => statuses.add(status), () => {});
    }
  }
  let knocking: Promise<void> | null = null;
  try {
    await says(shishi, "nats: connected");
    assert.equal((await post(shishi, { eventType: "a" })).status, 202);
    assert.equal(await told("pause"), "paused");
    knocking = knock();
    for (const [at, workers] of [2, 1].entries()) {
      writeFileSync(config, `workers = ${workers}\n`);
      signal([shishi.pid, ...followers(shishi)].at(-1)!, "SIGUSR2");
      await ended(shishi, at + 1);
      const { state } = await statusOf(shishi);
      const { status, json } = await ask(shishi, "GET", "/readyz");
      assert.deepEqual([state, status, json.reasons[0]], ["paused", 503, "paused"]);
      await soon(() => assert.equal(count(shishi, /^nats: connected/), at + 2));
      assert.equal(await told("status"), "paused");
      // What is held is still looked after.
      await soon(async () => assert.equal((await statusOf(shishi)).ledger.recovered, 1));
      if (workers === 1) continue;
      // The next SIGUSR2 finds it missing, or hardly back.
      process.kill(workerPid(dataDir, 1), "SIGKILL");
      await soon(() => assert.equal(count(shishi, /^a worker died/), 1));
    }
    assert.deepEqual([...statuses], [503]);
    assert.notEqual(await told("resume"), "paused");
    await soon(async () => assert.equal((await post(shishi, { eventType: "a" })).status, 202));
    assert.equal(count(shishi, /^not followed/), 0);
  } finally {
    ending.abort();
    await knocking;
    await asking.close();
    await closeAll(shishi);
    await nats.close();
    removeDir(dataDir);
  }
});

test("to NATS and InfluxDB it is one collector throughout; a stop that reaches the old one ends both", async () => {
  const nats = await startNats();
  const counts = createMemoryInflux();
  const influx = await startFakeInflux(counts);
  const shishi = await startShishi({
    args: [
      ...["--clickhouse-url", "http://127.0.0.1:1", "--shutdown-timeout=3s", "--workers=2"],
      ...["--nats-url", nats.url, "--influx-url", influx.url],
    ],
  });
  const asking = await asker(nats.url);
  try {
    await says(shishi, "nats: connected");
    for (let n = 0; n < 3; n++) await post(shishi, { eventType: "click" });
    const { goOn } = await follow(shishi);
    for (let n = 0; n < 4; n++) await post(shishi, { eventType: "click" });
    const status = asking.ask("shishi.status");
    assert.equal((await status.next())["ok"], true);
    for (const [command, state] of [["pause", "paused"], ["resume", "degraded"]]) {
      await asking.ask(`shishi.${command}`).next();
      await soon(async () => assert.equal((await statusOf(shishi)).state, state));
    }
    await goOn();
    await says(shishi, "draining");
    const stop = asking.ask("shishi.stop");
    assert.equal((await stop.next())["state"], "draining");
    assert.equal((await shishi.exited).code, 0, shishi.stderr());
    assert.equal(count(shishi, /^stopped; \d rows wait on disk/), 2, shishi.stderr());
    assert.deepEqual(stop.all.map(({ state }) => state), ["draining", "stopped"]);
    assert.equal(status.all.length, 1);
    const mirrored = counts.series("shishi", "shishi_events").map(({ sums }) => sums);
    assert.deepEqual(mirrored, [{ accepted: 7, stored: 0 }]);
  } finally {
    await asking.close();
    await closeAll(shishi);
    await influx.close();
    await nats.close();
  }
});
