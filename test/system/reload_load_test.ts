/**
 * Reloads while clients post: nothing that was acknowledged is missing or doubled, no connection is
 * lost, and SIGHUP ends nothing, whenever it comes.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import process from "node:process";
import { after, before, test } from "node:test";
import { CERTIFICATE, CERTIFICATE_KEY, RENEWED_KEY } from "../kit/certificate.ts";
import { compare, load, storedIds } from "../kit/load.ts";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { ON_BUN } from "../kit/shishi.ts";
import { eventually } from "../kit/wait.ts";
import { ledgerAtEnd, says, stopBy } from "./around.ts";
import { assertDelivered, say, watch } from "./books.ts";
import { knock, renew } from "./knocking.ts";
import { startReloading, told } from "./reloading.ts";
import { createPlain, good } from "./rows.ts";

let one: ClickHouse;
let other: ClickHouse;
before(async () => {
  [one, other] = await Promise.all([startClickHouse(), startClickHouse()]);
  await Promise.all([one, other].map((server) => createPlain(server, "plain")));
});
after(() => Promise.all([one.close(), other.close()]));

const TOKEN = "the-token-that-is-always-there";

async function forget(): Promise<void> {
  for (const server of [one, other]) {
    await server.query("DROP TABLE IF EXISTS analytics_events SYNC");
  }
}

/** All ids on both servers, with how often each is there. */
async function idsOnBoth(): Promise<Map<string, number>> {
  const all = new Map<string, number>();
  for (const server of [one, other]) {
    for (const [id, times] of await storedIds(server)) all.set(id, (all.get(id) ?? 0) + times);
  }
  return all;
}

/** Which setting goes with which is no affair of the runtime. */
const RELOADS = ON_BUN ? 12 : 6;
test(`${RELOADS} reloads under load, also from server to server: the ledger is right`, async () => {
  await forget();
  const token = { "auth-tokens": [TOKEN] };
  const at = await startReloading(() => ({
    "clickhouse-url": one.url,
    "flush-interval": "50ms",
    ...token,
  }));
  const { shishi } = at;
  const headers = { authorization: `Bearer ${TOKEN}` };
  const authorized = {
    ...shishi,
    get: (path: string) => shishi.get(path, headers),
    status: async () => (await shishi.get("/api/status", headers)).json,
  };
  try {
    const watching = watch(authorized);
    const ending = new AbortController();
    const post = (url: string, init: RequestInit) => fetch(url, { ...init, headers });
    const options = { url: shishi.url, clients: 4, events: Infinity, fetch: post };
    const loading = load({
      ...options,
      eventsPerRequest: 20,
      rowsPerSecond: 3_000,
      signal: ending.signal,
    });
    const toTable = load({
      ...options,
      clients: 1,
      eventsPerRequest: 1,
      rowsPerSecond: 50,
      path: "/events/plain",
      row: (_, n) => JSON.parse(good(n)),
      signal: ending.signal,
    });
    for (let n = 0; n < RELOADS; n++) {
      await at.set({
        "clickhouse-url": n % 2 === 0 ? other.url : one.url,
        "auth-tokens": n % 3 === 0 ? [TOKEN] : [`another-token-number-${n}`, TOKEN],
        "max-block-size": [10_000, 50, 500][n % 3]!,
        "flush-interval": ["50ms", "10ms", "200ms"][n % 3]!,
        concurrency: [4, 2, 8][n % 3]!,
        ack: n % 4 === 3 ? "memory" : "disk",
        ...(n % 5 === 0 ? {} : { tables: ["plain"] }),
      });
      const { received } = (await authorized.status()).ledger;
      await eventually(async () => {
        assert.ok((await authorized.status()).ledger.received > received + 200);
      }, { withinMs: 30_000 });
    }
    ending.abort();
    const [books, tableBooks] = await Promise.all([loading, toTable]);
    await at.set({});
    await eventually(() => assertDelivered(authorized), { withinMs: 30_000 });
    const seen = await watching.end();
    assert.equal(books.unanswered.size + tableBooks.unanswered.size, 0, "no request failed");
    assert.deepEqual([...books.statuses.keys()], [202]);
    assert.ok(
      [...tableBooks.statuses.keys()].every((status) => [202, 404].includes(status)),
      [...tableBooks.statuses.keys()].join(),
    );
    const stored = await idsOnBoth();
    assert.deepEqual(compare(books, stored), { missing: 0, doubled: 0, uninvited: 0 });
    assert.equal(stored.size, books.acknowledged.size);
    const counts = await Promise.all(
      [one, other].map((server) => server.query("SELECT count() FROM plain")),
    );
    const rows = counts.reduce((sum, text) => sum + Number(text), 0);
    await Promise.all([one, other].map((server) => server.query("TRUNCATE TABLE plain")));
    assert.equal(rows, tableBooks.acknowledged.size);
    assert.equal(told(shishi.lines(), "reloaded").length, RELOADS + 1);
    say(`${RELOADS} reloads`, { rows: stored.size + rows, mostHeld: seen.mostHeld });
  } finally {
    await at.close();
  }
});

const RENEWALS = ON_BUN ? 8 : 4;
test(`${RENEWALS} renewed certificates while connections are opened: none is refused`, async () => {
  const at = await startReloading((file) => ({
    "clickhouse-url": one.url,
    "tls-cert": file("cert", CERTIFICATE),
    "tls-key": file("key", CERTIFICATE_KEY),
  }));
  try {
    const { shishi } = at;
    const ending = new AbortController();
    const knocking = knock(shishi, 3, ending.signal);
    for (let turn = 0; turn < RENEWALS; turn++) {
      renew(at, turn);
      const lines = await at.reload();
      assert.deepEqual(told(lines, "reloaded").map(({ changed }) => changed), [
        "tls-cert, tls-key",
      ]);
      await knocking.settled();
    }
    // Not its key: what is served stays.
    at.file("key", RENEWALS % 2 === 0 ? RENEWED_KEY : CERTIFICATE_KEY);
    const refused = told(await at.reload(), "reload: unusable settings; nothing has changed");
    assert.match(String(refused[0]?.["problem"]), /^tls-key: expected the key of/);
    ending.abort();
    const { answered, failed } = await knocking.done;
    assert.deepEqual(failed, []);
    assert.deepEqual([...answered.keys()].sort(), ["Shishi renewed", "Shishi test"]);
    say(`${RENEWALS} renewals`, Object.fromEntries(answered));
    assert.equal((await stopBy(shishi)).code, 0, shishi.stderr());
  } finally {
    await at.close();
  }
});

test("SIGHUP ends nothing: in the first moments, without a file, at the end", async () => {
  const hups = new AbortController();
  const at = await startReloading(() => ({ "clickhouse-url": one.url }), {
    onSpawn: (pid) => hupFromTheFirst(pid, hups.signal),
  });
  const { shishi } = at;
  try {
    await says(shishi, "reload: nothing has changed");
    hups.abort();
    process.kill(-shishi.pid, "SIGHUP");
    await at.set({ "flush-interval": "20ms" });
    assert.equal((await shishi.get("/healthz")).status, 200);
    shishi.signal("SIGTERM");
    for (let n = 0; n < 10; n++) shishi.signal("SIGHUP");
    const { code, signal } = await shishi.exited;
    assert.deepEqual([code, signal], [0, null], shishi.stderr());
    assert.equal(ledgerAtEnd(shishi)["lost"], 0);
  } finally {
    hups.abort();
    await at.close();
  }
});

/**
 * Deno takes the system's signal a moment before its own list of listeners has it, and ends at one that is not
 * in the list: no program can help that.
 */
const LISTED_MS = ON_BUN ? 0 : 100;

/** SIGHUP every millisecond from when the process says that it takes the signal. */
function hupFromTheFirst(pid: number, ending: AbortSignal): void {
  let sinceMs = Infinity;
  const timer = setInterval(() => {
    if (ending.aborted) return clearInterval(timer);
    try {
      if (takesHup(pid)) sinceMs = Math.min(sinceMs, performance.now());
      if (performance.now() - sinceMs >= LISTED_MS) process.kill(pid, "SIGHUP");
    } catch {
      clearInterval(timer);
    }
  }, 1);
}

/** Before its `exec` a process is a copy of this one, whose handlers end with that; so its arguments are read first. */
function takesHup(pid: number): boolean {
  if (!readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("--config")) return false;
  const [, mask = "0"] = /^SigCgt:\s*([0-9a-f]+)/m.exec(
    readFileSync(`/proc/${pid}/status`, "utf8"),
  ) ?? [];
  return (BigInt(`0x${mask}`) & 1n) === 1n;
}
