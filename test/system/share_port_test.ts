/** `--share-port`: several collectors listen on one address, and share nothing else. */
import assert from "node:assert/strict";
import { dirname } from "node:path";
import { after, before, describe, test } from "node:test";
import { CERTIFICATE, CERTIFICATE_KEY } from "../kit/certificate.ts";
import { freePort } from "../kit/free_port.ts";
import { compare, load, storedIds } from "../kit/load.ts";
import { testOnce } from "../kit/once.ts";
import {
  type ClickHouse,
  type Influx,
  type Nats,
  startClickHouse,
  startInflux,
  startNats,
} from "../kit/servers.ts";
import { runShishi, startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir, tempFile } from "../kit/temp.ts";
import { eventually, pause } from "../kit/wait.ts";
import { ledgerAtEnd, stopBy } from "./around.ts";
import { knock, renew } from "./knocking.ts";
import { startReloading, told } from "./reloading.ts";
import { ask, NOWHERE, strictFetch } from "./upgrading.ts";

const PATIENCE = { withinMs: 20_000 };
const TURNS = 3;
const CLIENTS = 12;
/** Of a request. */
const ROWS = 5;

/** Flags of one collector of several on a port. */
const shared = (
  port: number,
  id: string,
) => ["--listen", `127.0.0.1:${port}`, "--share-port", "--id", id];

describe("two collectors on one port", () => {
  let clickhouse: ClickHouse;
  let influx: Influx;
  let nats: Nats;
  before(async () => {
    [clickhouse, influx, nats] = await Promise.all([startClickHouse(), startInflux(), startNats()]);
  });
  after(() => Promise.all([clickhouse.close(), influx.close(), nats.close()]));

  test("both are given some, each row is stored once, each counts under its own id", async () => {
    const database = "shared";
    await clickhouse.query(`CREATE DATABASE ${database}`);
    const port = await freePort();
    const start = (id: string) =>
      startShishi({
        args: [...shared(port, id), "--flush-interval=100ms", "--influx-interval=200ms"],
        env: {
          SHISHI_CLICKHOUSE_URL: `${clickhouse.url}/${database}`,
          SHISHI_INFLUX_URL: `${influx.url}/${database}`,
          SHISHI_NATS_URL: nats.url,
          SHISHI_NATS_SUBJECT: database,
        },
      });
    const [one, two] = [await start("one"), await start("two")];
    const client = strictFetch(one.url);
    try {
      const books = await load({
        url: one.url,
        clients: 16,
        events: 4_000,
        eventsPerRequest: 10,
        fetch: client.fetch,
      });
      assert.deepEqual(client.failures, []);
      assert.deepEqual([...books.statuses.keys()], [202]);
      // Whichever answers, it answers for itself.
      const received = new Map<string, number>();
      const owners = new Set<string>();
      await eventually(async () => {
        const { id, ledger } = (await ask(one, "GET", "/api/status")).json;
        received.set(id, ledger.received);
        const scrape = await ask(two, "GET", "/metrics");
        owners.add(
          /shishi_collector_info\{group="default",id="(\w+)"\} 1/.exec(scrape.text)?.[1] ?? "",
        );
        assert.deepEqual([[...received.keys()].sort(), [...owners].sort()], [["one", "two"], [
          "one",
          "two",
        ]]);
      }, PATIENCE);
      assert.ok([...received.values()].every((rows) => rows > 0), JSON.stringify([...received]));
      assert.equal([...received.values()].reduce((sum, rows) => sum + rows), 4_000);

      const asked = await runShishi(["status"], {
        env: { SHISHI_NATS_URL: nats.url, SHISHI_NATS_SUBJECT: database },
      });
      assert.match(asked.stdout, /\bone\b[^]*\btwo\b/, asked.stderr);
      for (const shishi of [one, two]) {
        assert.equal((await stopBy(shishi)).code, 0, shishi.stderr());
        assert.equal(ledgerAtEnd(shishi)["held"], 0);
      }
      const stored = await storedIds(clickhouse, `${database}.analytics_events`);
      assert.deepEqual(compare(books, stored), { missing: 0, doubled: 0, uninvited: 0 });
      assert.equal(stored.size, 4_000);
      const mirrored = await influx.query(
        database,
        "SELECT sum(stored) AS stored FROM shishi_events GROUP BY id",
      );
      assert.deepEqual(
        new Map(mirrored.map(({ id, stored }) => [String(id), Number(stored)])),
        received,
      );
    } finally {
      await client.close();
      await Promise.all([one.close(), two.close()]);
    }
  });

  test("one is stopped and started again under load: no acknowledged row is missing, the other goes on", async () => {
    const database = "shared_stop";
    await clickhouse.query(`CREATE DATABASE ${database}`);
    const port = await freePort();
    const dir = tempDir("shared");
    const start = (id: string) =>
      startShishi({
        args: [...shared(port, id), "--flush-interval=100ms", `--data-dir=${dir}/${id}`],
        env: { SHISHI_CLICKHOUSE_URL: `${clickhouse.url}/${database}` },
      });
    const stays = await start("stays");
    let goes = await start("goes");
    const ending = new AbortController();
    const loading = load({
      url: stays.url,
      clients: CLIENTS,
      events: Infinity,
      eventsPerRequest: ROWS,
      rowsPerSecond: 1_500,
      signal: ending.signal,
    });
    try {
      for (let turn = 0; turn < TURNS; turn++) {
        await pause(300);
        assert.equal((await stopBy(goes)).code, 0, goes.stderr());
        assert.equal(ledgerAtEnd(goes)["lost"], 0);
        await goes.close();
        // Nothing else listens there, so whatever comes now is answered by the one that stays.
        assert.equal((await ask(stays, "GET", "/api/status")).json.id, "stays");
        goes = await start("goes");
      }
      await pause(300);
      ending.abort();
      const books = await loading;
      for (const shishi of [stays, goes]) assert.equal((await stopBy(shishi)).code, 0);
      assert.ok([...books.statuses.keys()].every((status) => [202, 503].includes(status)));
      const stored = await storedIds(clickhouse, `${database}.analytics_events`);
      assert.deepEqual(compare(books, stored), { missing: 0, doubled: 0, uninvited: 0 });
      assert.ok(books.acknowledged.size > 1_000);
      // A connection that was not accepted yet goes with its socket: at most one of each client, each turn.
      assert.ok(books.unanswered.size <= TURNS * CLIENTS * ROWS, `${books.unanswered.size}`);
    } finally {
      ending.abort();
      await Promise.all([stays.close(), goes.close()]);
      removeDir(dir);
    }
  });
});

test("SIGUSR2 is refused: it would take the others' connections", async () => {
  const port = await freePort();
  const one = await startShishi({ args: [...NOWHERE, ...shared(port, "one")] });
  const two = await startShishi({ args: [...NOWHERE, ...shared(port, "two")] });
  try {
    one.signal("SIGUSR2");
    await eventually(() => {
      const refusal = one.lines().find(({ message }) => /^not followed/.test(String(message)));
      assert.match(String(refusal?.message), /\(share-port\); restart it instead: they take the/);
    }, PATIENCE);
    const ids = new Set<string>();
    await eventually(async () => {
      ids.add((await ask(one, "GET", "/api/status")).json.id);
      assert.equal(ids.size, 2);
    }, PATIENCE);
  } finally {
    await Promise.all([one.close(), two.close()]);
  }
});

test("a renewed certificate: the others go on being given connections, with the certificate that they have", async () => {
  const port = await freePort();
  const files = [tempFile("cert", CERTIFICATE), tempFile("key", CERTIFICATE_KEY)] as const;
  const other = await startShishi({
    args: [...NOWHERE, ...shared(port, "other"), "--tls-cert", files[0], "--tls-key", files[1]],
  });
  const at = await startReloading((file) => ({
    "tls-cert": file("cert", CERTIFICATE),
    "tls-key": file("key", CERTIFICATE_KEY),
  }), { args: [...NOWHERE, ...shared(port, "renewed")], listens: true });
  try {
    renew(at, 0);
    assert.equal(told(await at.reload(), "reloaded").length, 1);
    // The server from before is gone; of the two that are left, neither gets all.
    await pause(7_000);
    const ending = new AbortController();
    const knocking = knock(at.shishi, 3, ending.signal);
    await pause(2_000);
    ending.abort();
    const { answered, failed } = await knocking.done;
    assert.deepEqual(failed, []);
    assert.deepEqual([...answered.keys()].sort(), ["Shishi renewed", "Shishi test"]);
  } finally {
    await Promise.all([at.close(), other.close()]);
    for (const file of files) removeDir(dirname(file));
  }
});

testOnce(
  "what two must not have in common: a data folder; a port with one that does not share",
  async () => {
    const port = await freePort();
    const dir = tempDir("shared");
    const one = await startShishi({
      args: [...NOWHERE, ...shared(port, "one"), "--data-dir", dir],
    });
    const start = (...args: string[]) => runShishi(["serve", ...NOWHERE, ...args]);
    try {
      const [folder, alone, unnamed] = await Promise.all([
        start(...shared(port, "two"), "--data-dir", dir),
        start("--listen", `127.0.0.1:${port}`, "--data-dir", `${dir}/two`),
        start("--listen", `127.0.0.1:${port}`, "--share-port"),
      ]);
      assert.deepEqual([folder.code, alone.code, unnamed.code], [1, 1, 2]);
      assert.match(folder.stderr, /cannot start: .*in use/);
      assert.match(
        alone.stderr,
        /cannot start: cannot listen on .*another program listens there already/,
      );
      assert.match(unnamed.stderr, /share-port: expected an id too/);
      const check = await runShishi([
        ...["check", ...NOWHERE.slice(0, 2), ...shared(port, "one"), "--data-dir", `${dir}/two`],
      ]);
      assert.match(
        check.stdout,
        /a collector of the same id \(one\) and another data-dir listens there/,
      );
      const fine = await runShishi([
        ...["check", ...NOWHERE.slice(0, 2), ...shared(port, "two"), "--data-dir", `${dir}/two`],
      ]);
      assert.match(fine.stdout, /other collectors listen there as well: one/);
    } finally {
      await one.close();
      removeDir(dir);
    }
  },
);
