/** SIGUSR2: another process takes over, and nobody notices. */
import assert from "node:assert/strict";
import { copyFileSync, renameSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { compare, load, storedIds } from "../kit/load.ts";
import { testOnce } from "../kit/once.ts";
import { oneClickHouse } from "../kit/one_clickhouse.ts";
import { openRaw, rawRequest } from "../kit/raw_http.ts";
import { EVERY_BUILD, startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { startReceiver } from "../systemd/receiver.ts";
import { bad, createPlain, DEDUPLICATED, good } from "./rows.ts";
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
  strictFetch,
} from "./upgrading.ts";

const clickhouse = oneClickHouse();

const BINARY = fileURLToPath(new URL("../../dist/shishi", import.meta.url));
/** One after the other. */
const UPGRADES = 2;
for (const binary of EVERY_BUILD) {
  const what = binary ? "the binary" : "from source";
  test(`${what}: under load no request fails, and each row is stored once`, async () => {
    const database = `upgrade_${binary ? "binary" : "source"}`;
    await clickhouse.query(`CREATE DATABASE ${database}`);
    const dir = tempDir("upgrade");
    const program = join(dir, "shishi");
    const config = join(dir, "shishi.toml");
    if (binary) copyFileSync(BINARY, program);
    writeFileSync(config, `max-block-size = 1000\n`);
    const shishi = await startShishi({
      binary: binary && program,
      args: ["--clickhouse-url", `${clickhouse.url}/${database}`, "--config", config],
    });
    const client = strictFetch(shishi.url);
    const stop = new AbortController();
    const rate = binary ? 2_000 : 500;
    const loading = load({
      url: shishi.url,
      clients: 24,
      events: 60_000,
      eventsPerRequest: 1,
      rowsPerSecond: rate,
      signal: stop.signal,
      fetch: client.fetch,
    });
    try {
      const sent = (rows: number) =>
        soon(async () => assert.ok((await statusOf(shishi)).ledger.received >= rows));
      await sent(rate / 2);
      if (binary) {
        symlinkSync(BINARY, `${program}.next`);
        renameSync(`${program}.next`, program);
      }
      for (let at = 0; at < UPGRADES; at++) {
        writeFileSync(config, `max-block-size = ${2_000 + at}\n`);
        signal([shishi.pid, ...followers(shishi)].at(-1)!, "SIGUSR2");
        await ended(shishi, at + 1);
        await sent(rate / 2);
      }
      await settled(shishi);
      stop.abort();
      const books = await loading;
      assert.deepEqual(client.failures, []);
      assert.deepEqual([...books.statuses.keys()], [202]);
      signal(followers(shishi).at(-1)!, "SIGTERM");
      assert.equal((await shishi.exited).code, 0);
      const stored = await storedIds(clickhouse, `${database}.analytics_events`);
      assert.deepEqual(compare(books, stored), { missing: 0, doubled: 0, uninvited: 0 });
      assert.equal(stored.size, books.acknowledged.size);
      const troubles = shishi.lines().filter(({ level }) =>
        !["info", "debug"].includes(`${level}`)
      );
      assert.deepEqual(troubles, []);
    } finally {
      stop.abort();
      await client.close();
      await closeAll(shishi);
      removeDir(dir);
    }
  });
}

testOnce(
  "rows that the old one could not deliver are the new one's; killed, they wait for a plain start",
  async () => {
    const dir = tempDir("upgrade");
    const dataDir = ["--data-dir", dir];
    const shishi = await startShishi({ args: [...NOWHERE, ...dataDir] });
    try {
      await post(shishi, [{ eventType: "old" }, { eventType: "old" }]);
      shishi.signal("SIGUSR2");
      await ended(shishi, 1);
      await post(shishi, [{ eventType: "new" }]);
      await settled(shishi);
      const { ledger } = await statusOf(shishi);
      assert.deepEqual([ledger.received, ledger.recovered, ledger.held], [1, 2, 3]);
    } finally {
      await closeAll(shishi);
    }
    await clickhouse.query("CREATE DATABASE upgrade_killed");
    const next = await startShishi({
      args: ["--clickhouse-url", `${clickhouse.url}/upgrade_killed`, ...dataDir],
    });
    try {
      await soon(async () => assert.equal((await statusOf(next)).ledger.stored, 3));
    } finally {
      await next.close();
      removeDir(dir);
    }
  },
);

testOnce("an old one that is killed leaves its rows to the new one", async () => {
  const shishi = await startShishi({
    args: ["--clickhouse-url", "http://127.0.0.1:1", "--shutdown-timeout", "1m"],
  });
  try {
    await post(shishi, [{ eventType: "old" }]);
    shishi.signal("SIGUSR2");
    await soon(() => assert.equal(count(shishi, /^draining/), 1));
    shishi.signal("SIGUSR2");
    await soon(() => assert.equal(count(shishi, /^SIGUSR2: process \d+ follows this one/), 1));
    await post(shishi, [{ eventType: "new" }]);
    assert.equal((await statusOf(shishi)).recovering, true);
    shishi.signal("SIGKILL");
    await soon(async () => {
      const { ledger, recovering } = await statusOf(shishi);
      assert.deepEqual([recovering, ledger.recovered, ledger.held], [false, 1, 2]);
    });
  } finally {
    await closeAll(shishi);
  }
});

testOnce(
  "dead letters of both lie in one place: those of the new one wait for the old one",
  async () => {
    await clickhouse.query("CREATE DATABASE upgrade_letters");
    await createPlain(clickhouse, "upgrade_letters.plain", DEDUPLICATED);
    const shishi = await startShishi({
      args: [
        ...["--clickhouse-url", `${clickhouse.url}/upgrade_letters`, "--tables=plain"],
        // What the door finds by itself never becomes a letter.
        "--type-check=off",
      ],
    });
    // A connection that stays open holds up the handing over.
    const idle = await openRaw(shishi.url);
    const write = async (from: number) => {
      const rows = [good(from), bad(from + 1)].map((row) => JSON.parse(row));
      assert.equal((await ask(shishi, "POST", "/events/plain", rows)).status, 202);
    };
    const books = (stored: number, dead: number, held: number) =>
      soon(async () => {
        const { ledger } = await statusOf(shishi);
        assert.deepEqual([ledger.stored, ledger.dead, ledger.held], [stored, dead, held]);
      });
    const stored = () =>
      clickhouse.query("SELECT count(), uniqExact(n) FROM upgrade_letters.plain");
    try {
      await write(0);
      await books(1, 1, 0);
      idle.send(rawRequest("GET", "/healthz"));
      await idle.answer();
      shishi.signal("SIGUSR2");
      await soon(async () => {
        assert.equal(count(shishi, /^listening/), 2, shishi.stderr());
        // For a moment they share.
        for (let n = 0; n < 6; n++) assert.equal((await statusOf(shishi)).ledger.received, 0);
      });
      await write(2);
      // What is left of its batch is the letter.
      await soon(async () => assert.equal((await stored()).trim(), "2\t2"));
      await books(0, 0, 2);
      const busy = await ask(shishi, "POST", "/api/dead/replay");
      assert.equal(busy.status, 409, busy.text);
      assert.equal((await ask(shishi, "GET", "/api/dead")).json.total, 1);
      await idle.close();
      await ended(shishi, 1);
      await books(1, 1, 0);
      assert.equal((await ask(shishi, "GET", "/api/dead")).json.total, 2);
      assert.equal((await stored()).trim(), "2\t2");
    } finally {
      await idle.close();
      await closeAll(shishi);
    }
  },
);

test("a new one that cannot start changes nothing", async () => {
  const dir = tempDir("upgrade");
  const config = join(dir, "shishi.toml");
  writeFileSync(config, 'group = "g"\n');
  const shishi = await startShishi({ args: [...NOWHERE, "--config", config] });
  try {
    writeFileSync(config, "grop = 1\n");
    shishi.signal("SIGUSR2");
    await soon(() => assert.equal(count(shishi, /^not followed/), 1));
    assert.match(shishi.stderr(), /not followed by a new process: it has ended \(exit code 2\)/);
    assert.equal((await post(shishi, { eventType: "a" })).status, 202);

    writeFileSync(config, 'group = "other"\n');
    shishi.signal("SIGUSR2");
    await ended(shishi, 1);
    assert.equal((await statusOf(shishi)).group, "other");
  } finally {
    await closeAll(shishi);
    removeDir(dir);
  }
});

test("a stop in the middle of it ends both", async () => {
  const shishi = await startShishi({ args: NOWHERE });
  // A connection that stays open holds up the handing over.
  const idle = await openRaw(shishi.url);
  try {
    shishi.signal("SIGUSR2");
    await soon(() => assert.equal(count(shishi, /^listening/), 2));
    shishi.signal("SIGUSR2");
    await soon(() => assert.equal(count(shishi, /^SIGUSR2: an upgrade is under way/), 1));
    shishi.signal("SIGTERM");
    assert.equal((await shishi.exited).code, 0);
    assert.equal(count(shishi, /^stopped/), 2);
  } finally {
    await idle.close();
    await closeAll(shishi);
  }
});

test("a service manager is told who the service is, by the old one, before the new one is ready", async () => {
  const dir = tempDir("upgrade");
  const receiver = await startReceiver(join(dir, "notify"));
  const shishi = await startShishi({
    args: NOWHERE,
    env: { NOTIFY_SOCKET: join(dir, "notify"), WATCHDOG_USEC: "400000", WATCHDOG_PID: "" },
  });
  try {
    await receiver.heard(/WATCHDOG/);
    shishi.signal("SIGUSR2");
    const main = await receiver.heard(/^MAINPID=/);
    assert.equal(main, `MAINPID=${followers(shishi)[0]}|`);
    const at = receiver.messages.indexOf(main);
    assert.equal(await receiver.heard(/./, at + 1), "READY=1|");
    await receiver.heard(/WATCHDOG=1/, at + 1);
    await ended(shishi, 1);
    assert.doesNotMatch(receiver.messages.join("\n"), /STOPPING/);
  } finally {
    await closeAll(shishi);
    await receiver.close();
    removeDir(dir);
  }
});
