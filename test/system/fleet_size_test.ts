/**
 * A fleet of thirty: so many collectors, each a process of the compiled binary, under one NATS. Status
 * shows them all, a group stops by one command and by batches, and every row of theirs is stored.
 * Runs once: the collectors are the binary.
 */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { createInbox } from "nats.ws";
import { type ClickHouse, type Nats, startClickHouse, startNats } from "../kit/servers.ts";
import { runShishi, type Shishi, startShishi } from "../kit/shishi.ts";
import { eventually } from "../kit/wait.ts";
import { asker } from "../remote/kit.ts";
import { ledgerAtEnd, says } from "./around.ts";

const GROUPS: readonly [group: string, size: number][] = [["asia", 5], ["eu", 10], ["us", 15]];
const BATCH = 5;
const ROWS = 3;
/** Started at a time; all at once they would take each other's time to start. */
const AT_ONCE = 10;

const NAMES = GROUPS.flatMap(([group, size]) =>
  Array.from({ length: size }, (_, n) => `${group}.c-${String(n + 1).padStart(2, "0")}`)
);

describe(`a fleet of ${NAMES.length}`, () => {
  let clickhouse: ClickHouse;
  let nats: Nats;
  const fleet = new Map<string, Shishi>();

  before(async () => {
    [clickhouse, nats] = await Promise.all([startClickHouse(), startNats()]);
    const waiting = [...NAMES].reverse();
    const starter = async () => {
      for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
        const shishi = await startCollector(name);
        fleet.set(name, shishi);
        const rows = Array.from({ length: ROWS }, () => ({ eventType: "held", userId: name }));
        assert.equal((await shishi.post(rows)).status, 202);
        await says(shishi, "nats: connected");
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, starter));
  }, { timeout: 120_000 });
  after(async () => {
    await Promise.all([...fleet.values()].map((shishi) => shishi.close()));
    await Promise.all([clickhouse?.close(), nats?.close()]);
  });

  function startCollector(name: string): Promise<Shishi> {
    const [group = "", id = ""] = name.split(".");
    return startShishi({
      binary: true,
      args: ["--flush-interval", "1h", "--backlog-bytes", "1MiB", "--shutdown-timeout", "30s"],
      env: {
        SHISHI_CLICKHOUSE_URL: clickhouse.url,
        SHISHI_NATS_URL: nats.url,
        SHISHI_GROUP: group,
        SHISHI_ID: id,
      },
    });
  }

  const shishi = (...argv: string[]) =>
    runShishi(argv, { binary: true, env: { SHISHI_NATS_URL: nats.url }, withinMs: 50_000 });
  const lines = (text: string) => text.trimEnd().split("\n");
  const of = (group: string) => NAMES.filter((name) => name.startsWith(`${group}.`));
  const collector = (name: string) => fleet.get(name)!;
  const storedOf = (group: string) =>
    clickhouse.query(
      `SELECT count() FROM analytics_events WHERE startsWith(user_id, '${group}.')`,
    );

  /** The lines of those that the command changed, e.g. all that say `stopped`. */
  const said = (stdout: string, state: string) =>
    lines(stdout).filter((line) => new RegExp(`^\\S+  ${state} `).test(line))
      .map((line) => line.split(" ")[0]!);

  async function assertEnded(names: readonly string[]): Promise<void> {
    const exits = await Promise.all(names.map((name) => collector(name).exited));
    assert.deepEqual(exits.map(({ code }) => code), names.map(() => 0));
    for (const name of names) {
      const { stored, held, lost } = ledgerAtEnd(collector(name));
      assert.deepEqual([stored, held, lost], [ROWS, 0, 0], name);
    }
  }

  /** What passes by on NATS: who was told to stop, and has not said that it has. */
  async function eavesdrop(group: string) {
    const client = await asker(nats.url);
    let told = 0;
    let open = 0;
    let mostAtOnce = 0;
    client.connection.subscribe(">", {
      callback: (_, { subject, data }) => {
        if (subject.startsWith(`shishi.stop.${group}.`)) {
          told++;
          mostAtOnce = Math.max(mostAtOnce, ++open);
        } else if (/"command":"stop".*"state":"stopped"/.test(new TextDecoder().decode(data))) {
          open--;
        }
      },
    });
    await client.connection.flush();
    return {
      end: async () => {
        await client.connection.flush();
        await client.close();
        return { told, mostAtOnce };
      },
    };
  }

  test("status: one line each, sorted by group and id", async () => {
    const { code, stdout, stderr } = await shishi("status");
    assert.equal(code, 0, stderr);
    assert.equal(stderr, "");
    const [, ...rows] = lines(stdout).map((line) => line.split(/ +/));
    assert.deepEqual(rows.map(([group, id]) => `${group}.${id}`), NAMES);
    for (const [group, id, state, held, oldest, stored, dead, lost, version, uptime] of rows) {
      const rest = [state, held, stored, dead, lost];
      assert.deepEqual(rest, ["running", String(ROWS), "0", "0", "0"], `${group}.${id}`);
      assert.match(oldest!, /^\d+(m\d\d)?s$/);
      assert.match(version!, /^\d+\.\d+\.\d+/);
      assert.match(uptime!, /^\d+(m\d\d)?s$/);
    }
  });

  test("status --json: one line of JSON each", async () => {
    const { code, stdout } = await shishi("status", "--json");
    assert.equal(code, 0);
    const names = lines(stdout).map((line) => JSON.parse(line)).map(({ group, id }) =>
      `${group}.${id}`
    );
    assert.deepEqual(names.sort(), NAMES);
  });

  test("every process says which one it is, each time the same", async () => {
    const client = await asker(nats.url);
    const ask = async (): Promise<string[]> => {
      const instances: string[] = [];
      const inbox = createInbox();
      client.connection.subscribe(inbox, {
        callback: (_, { headers }) => instances.push(headers?.get("Shishi-Instance") ?? ""),
      });
      client.connection.publish("shishi.status", "", { reply: inbox });
      await eventually(() => assert.equal(instances.length, NAMES.length), { withinMs: 20_000 });
      return instances.sort();
    };
    try {
      const first = await ask();
      assert.equal(new Set(first).size, NAMES.length);
      assert.deepEqual(await ask(), first);
    } finally {
      await client.close();
    }
  });

  test("stop --dry-run: lists who would stop, and nobody does", async () => {
    const { code, stdout, stderr } = await shishi("stop", "--dry-run", "--target", "asia");
    assert.equal(code, 0, stderr);
    assert.deepEqual(
      lines(stdout).slice(1, -1).map((line) => line.split(/ +/).slice(0, 2).join(".")),
      of("asia"),
    );
    assert.equal(lines(stdout).at(-1), "5 collectors would stop; nothing was sent but status");
    for (const name of of("asia")) assert.equal((await collector(name).status()).state, "running");
  });

  test("stop --target GROUP: each drains, what it held is stored, the others go on", async () => {
    const { code, stdout, stderr } = await shishi("stop", "--target", "asia", "--timeout", "40s");
    assert.equal(code, 0, stderr);
    assert.deepEqual(said(stdout, "draining").sort(), of("asia"));
    assert.deepEqual(said(stdout, "stopped").sort(), of("asia"));
    assert.equal(lines(stdout).at(-1), "5 of 5 stopped");
    await assertEnded(of("asia"));
    assert.equal(await storedOf("asia"), String(5 * ROWS));
    for (const name of [...of("eu"), ...of("us")]) {
      assert.equal((await collector(name).status()).state, "running");
    }
  });

  test(`stop --batch ${BATCH} --wait: never more than ${BATCH} stop at once`, async () => {
    const seen = await eavesdrop("us");
    const { code, stdout, stderr } = await shishi(
      ...["stop", "--target", "us", "--batch", String(BATCH), "--wait", "--timeout", "40s"],
    );
    assert.equal(code, 0, stderr);
    assert.equal(lines(stdout).at(-1), "15 of 15 stopped");
    const batches = stdout.split(/^batch \d of 3: /m).slice(1);
    assert.equal(batches.length, 3);
    for (const [at, text] of batches.entries()) {
      const names = of("us").slice(at * BATCH, (at + 1) * BATCH);
      assert.equal(lines(text)[0], names.join(", "));
      assert.deepEqual(said(text, "stopped").sort(), names);
    }
    await assertEnded(of("us"));
    assert.deepEqual(await seen.end(), { told: 15, mostAtOnce: BATCH });
  });

  test("stop of all without a terminal asks nobody", async () => {
    const { code, stdout, stderr } = await shishi("stop", "--timeout", "40s");
    assert.equal(code, 0, stderr);
    assert.equal(lines(stdout).at(-1), "10 of 10 stopped");
    await assertEnded(of("eu"));
    assert.equal(await clickhouse.query("SELECT count() FROM analytics_events"), "90");
  });
});
