/**
 * Remote control of running collectors over a real NATS, by `shishi` commands and by a plain client:
 * stopping a fleet under load, targets, status, pause, flush, and a NATS that comes and goes.
 * Runs once: test/fleet/ and test/remote/ have both runtimes.
 */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type Books, compare, load, storedIds } from "../kit/load.ts";
import { type ClickHouse, type Nats, startClickHouse, startNats } from "../kit/servers.ts";
import { runShishi, type Shishi, startShishi } from "../kit/shishi.ts";
import { eventually } from "../kit/wait.ts";
import { asker } from "../remote/kit.ts";
import { ledgerAtEnd, ready, says } from "./around.ts";

interface Collectors {
  readonly all: readonly Shishi[];
  close(): Promise<void>;
}

/** Starts one collector a name (`GROUP.ID`) and waits until each is ready and under control. */
async function startFleet(
  names: readonly string[],
  settings: Readonly<Record<string, string>>,
): Promise<Collectors> {
  const all = await Promise.all(names.map((name) => {
    const [group = "", id = ""] = name.split(".");
    return startShishi({ env: { ...settings, SHISHI_GROUP: group, SHISHI_ID: id } });
  }));
  const close = async () => {
    await Promise.all(all.map((shishi) => shishi.close()));
  };
  try {
    await Promise.all(all.map(async (shishi) => {
      await ready(shishi);
      await says(shishi, "nats: connected");
    }));
  } catch (problem) {
    await close();
    throw problem;
  }
  return { all, close };
}

const lines = (text: string) => text.trimEnd().split("\n");
const stateOf = async (shishi: Shishi) => (await shishi.status()).state;

describe("a fleet", () => {
  let clickhouse: ClickHouse;
  let nats: Nats;
  before(async () => {
    [clickhouse, nats] = await Promise.all([startClickHouse(), startNats()]);
  });
  after(async () => {
    await Promise.all([clickhouse.close(), nats.close()]);
  });

  const shishi = (...argv: string[]) =>
    runShishi(argv, { env: { SHISHI_NATS_URL: nats.url }, withinMs: 40_000 });
  const settings = (table: string, flushInterval = "200ms") => ({
    SHISHI_CLICKHOUSE_URL: clickhouse.url,
    SHISHI_NATS_URL: nats.url,
    SHISHI_TABLE: table,
    SHISHI_FLUSH_INTERVAL: flushInterval,
  });

  async function stopByCommand(): Promise<void> {
    const { code, stdout, stderr } = await shishi("stop", "--target", "all", "--timeout", "30s");
    assert.equal(code, 0, stderr);
    assert.equal(stderr, "");
    for (const name of ["eu.a", "eu.b", "us.c"]) {
      assert.match(stdout, new RegExp(`^${name}  draining `, "m"));
      assert.match(stdout, new RegExp(`^${name}  stopped .* held 0 .* lost 0$`, "m"));
    }
    assert.equal(lines(stdout).at(-1), "3 of 3 stopped");
  }

  async function stopByHand(): Promise<void> {
    const client = await asker(nats.url);
    client.connection.publish("shishi.stop", `{"anything"}`);
    await client.connection.flush();
    await client.close();
  }

  const ways: [string, () => Promise<void>][] = [
    ["shishi stop --target all", stopByCommand],
    [`a plain {"anything"} on shishi.stop`, stopByHand],
  ];
  for (const [name, stop] of ways) {
    test(`${name}: three collectors under load drain, nothing acknowledged is missing`, async () => {
      const table = `load_${ways.findIndex((way) => way[0] === name)}`;
      const fleet = await startFleet(["eu.a", "eu.b", "us.c"], settings(table));
      const enough = new AbortController();
      try {
        const loads = fleet.all.map(({ url }) =>
          load({
            url,
            clients: 8,
            events: 1_000_000,
            eventsPerRequest: 10,
            rowsPerSecond: 1_500,
            signal: enough.signal,
          })
        );
        await eventually(async () => {
          for (const each of fleet.all) assert.ok((await each.status()).ledger.stored > 500);
        }, { withinMs: 20_000 });

        await stop();
        const exits = await Promise.all(fleet.all.map((each) => each.exited));
        enough.abort();
        const books = await Promise.all(loads);

        assert.deepEqual(exits.map(({ code }) => code), [0, 0, 0]);
        const stored = await storedIds(clickhouse, table);
        let acknowledged = 0;
        for (const [at, book] of books.entries()) {
          assert.deepEqual(compare(book, stored), { missing: 0, doubled: 0, uninvited: 0 });
          assert.deepEqual(unexpected(book, [202, 503]), []);
          const last = ledgerAtEnd(fleet.all[at]!);
          assert.deepEqual([last["held"], last["lost"]], [0, 0]);
          acknowledged += book.acknowledged.size;
        }
        assert.ok(acknowledged > 1_500, `${acknowledged} acknowledged`);
      } finally {
        enough.abort();
        await fleet.close();
      }
    });
  }

  describe("by its targets", () => {
    let fleet: Collectors;
    const table = "targets";
    const count = () => clickhouse.query(`SELECT count() FROM ${table}`);
    before(async () => {
      fleet = await startFleet(["eu.a", "eu.b", "us.c"], settings(table, "1h"));
    });
    after(() => fleet.close());

    test("status: a table, one line a collector", async () => {
      const { code, stdout, stderr } = await shishi("status");
      assert.equal(code, 0, stderr);
      const [head = "", ...rows] = lines(stdout);
      assert.match(head, /^GROUP +ID +STATE +HELD +OLDEST +STORED +DEAD +LOST +VERSION +UPTIME$/);
      assert.equal(rows.length, 3, stdout);
      for (const [at, name] of [["eu", "a"], ["eu", "b"], ["us", "c"]].entries()) {
        assert.match(rows[at] ?? "", new RegExp(`^${name[0]} +${name[1]} +running +0 `));
      }
    });

    test("status --json: one line of JSON a collector", async () => {
      const { code, stdout } = await shishi("status", "--json", "--target", "eu");
      assert.equal(code, 0);
      const answers = lines(stdout).map((line) => JSON.parse(line));
      assert.deepEqual(answers.map(({ id }) => id).sort(), ["a", "b"]);
      for (const answer of answers) {
        assert.deepEqual([answer.group, answer.ok, answer.state], ["eu", true, "running"]);
        assert.equal(answer.ledger.lost, 0);
        assert.equal(typeof answer.uptime_s, "number");
      }
    });

    test("pause and resume: writes are refused, delivery goes on", async () => {
      const [, , us] = fleet.all as [Shishi, Shishi, Shishi];
      assert.equal((await us.post({ eventType: "held" })).status, 202);
      const paused = await shishi("pause", "--target", "us");
      assert.equal(paused.code, 0, paused.stderr);
      assert.match(paused.stdout, /^us\.c +paused .*\n1 of 1 paused\n$/);
      const refused = await us.post({ eventType: "refused" });
      assert.equal(refused.status, 503);
      assert.match(refused.headers.get("retry-after") ?? "", /^[1-9]\d*$/);
      assert.equal((await us.get("/readyz")).status, 503);
      assert.equal((await fleet.all[0]!.post({ eventType: "other group" })).status, 202);

      const flushed = await shishi("flush", "--target", "us.c");
      assert.equal(flushed.code, 0, flushed.stderr);
      assert.equal(await count(), "1");

      const resumed = await shishi("resume", "--target", "us.c");
      assert.equal(resumed.code, 0, resumed.stderr);
      assert.match(resumed.stdout, /^us\.c +running /);
      assert.equal((await us.post({ eventType: "after" })).status, 202);
      assert.equal((await us.get("/readyz")).status, 200);
    });

    test("flush answers twice; at the second the rows are in ClickHouse", async () => {
      const [a] = fleet.all as [Shishi];
      await a.post([{ eventType: "x" }, { eventType: "y" }]);
      const client = await asker(nats.url);
      try {
        const answers = client.ask("shishi.flush");
        const states: string[] = [];
        for (let n = 0; n < 6; n++) {
          const { ok, state } = await answers.next();
          assert.equal(ok, true);
          states.push(String(state));
        }
        assert.equal(await count(), "5");
        assert.deepEqual(states.sort(), [
          ...Array(3).fill("flushed"),
          ...Array(3).fill("flushing"),
        ]);
      } finally {
        await client.close();
      }
    });

    test("GROUP.ID and GROUP stop only theirs", async () => {
      const [a, b, c] = fleet.all as [Shishi, Shishi, Shishi];
      await b.post({ eventType: "last" });
      const one = await shishi("stop", "--target", "eu.b");
      assert.equal(one.code, 0, one.stderr);
      assert.equal(lines(one.stdout).at(-1), "1 of 1 stopped");
      assert.equal((await b.exited).code, 0);
      assert.equal(ledgerAtEnd(b)["stored"], 1);
      assert.deepEqual(await Promise.all([a, c].map(stateOf)), ["running", "running"]);

      const group = await shishi("stop", "--target", "us", "--json");
      assert.equal(group.code, 0, group.stderr);
      const states = lines(group.stdout).map((line) => JSON.parse(line).state);
      assert.deepEqual(states, ["draining", "stopped"]);
      assert.equal((await c.exited).code, 0);
      assert.equal(await stateOf(a), "running");

      const other = await shishi("stop", "--target", "asia");
      assert.equal(other.code, 1);
      assert.match(other.stderr, /^shishi: no collector listens on shishi\.stop\.asia: .+\n$/);
      assert.equal(await stateOf(a), "running");
    });
  });
});

/** Statuses that a client has no business to see. */
function unexpected(books: Books, expected: readonly number[]): number[] {
  return [...books.statuses.keys()].filter((status) => !expected.includes(status));
}
