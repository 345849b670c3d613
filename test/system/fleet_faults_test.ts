/**
 * What NATS may do to a collector under load, each for `NATS_FAULT_S` seconds (in the environment): it
 * stands still, its packets vanish, it takes the credentials back, it floods the collector. Ingest does
 * not notice, memory does not grow, control is back soon, and then one stop is obeyed once.
 *
 * The faults happen side by side, each to a collector and a NATS of its own: it is mostly waiting.
 * Runs once: test/fleet/ and test/remote/ have both runtimes.
 */

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import process from "node:process";
import { after, before, describe, test } from "node:test";
import { compare, load, storedIds } from "../kit/load.ts";
import { type ClickHouse, type Nats, startClickHouse, startNats } from "../kit/servers.ts";
import { runShishi, type Shishi, startShishi } from "../kit/shishi.ts";
import { removeDir, tempFile } from "../kit/temp.ts";
import { eventually, patient, pause } from "../kit/wait.ts";
import { asker } from "../remote/kit.ts";
import { ledgerAtEnd, ready, says } from "./around.ts";
import { metrics, say, sum } from "./books.ts";
import { startIsland } from "./fleet_partition.ts";

/** Longer than the 12 s after which a silent server is given up. */
const FAULT_S = Number(process.env.NATS_FAULT_S ?? 13);
/** Takes all there is of the processor, so it is a short one unless the faults are made longer. */
const FLOOD_S = FAULT_S / 3;
const BACK_WITHIN_MS = 20_000;
/** A request that waits for NATS would wait for seconds: to dial, to ping, to flush. */
const SLOWEST_MS = 3_000;
/** A flood takes the processor's time from everybody, the test's own clients included. */
const SLOWEST_IN_FLOOD_MS = 8_000;
const WARM_UP_MS = 3_000;
/** Less than the payloads of the shortest flood, 130 MiB, and a garbage collector's leeway. */
const MAX_GROWTH_MIB = 120;
/** A command is a process that has to start, on a machine that is busy. */
const TOLD_WITHIN_MS = 2 * BACK_WITHIN_MS;

interface Fault {
  readonly url: string;
  readonly env?: Readonly<Record<string, string>>;
  /** The p99 of a request may be so meanwhile; `SLOWEST_MS` unless given. */
  readonly slowestMs?: number;
  /** Lasts until the fault is over. */
  happen(collector: Shishi): Promise<void>;
  close(): Promise<void>;
}

const faults: Readonly<Record<string, () => Promise<Fault>>> = {
  "stands still (SIGSTOP)": async () => {
    const nats = await startNats();
    return {
      url: nats.url,
      happen: async () => {
        process.kill(nats.pid, "SIGSTOP");
        await pause(FAULT_S * 1000);
        process.kill(nats.pid, "SIGCONT");
      },
      close: nats.close,
    };
  },
  "is cut off, packets vanish": async () => {
    const island = await startIsland();
    say("partition", { by: island.by });
    return {
      url: island.url,
      happen: async (collector) => {
        island.cut();
        await says(collector, "nats: connection lost", 30_000);
        await pause(Math.max(2, FAULT_S - 13) * 1000);
        island.join();
      },
      close: island.close,
    };
  },
  "takes the credentials back and gives them again": async () => {
    const user = (password: string) => `authorization { user: "u", password: "${password}" }\n`;
    const file = tempFile("auth.conf", user("right-password"));
    const write = (password: string) => writeFileSync(file, user(password));
    const nats = await startNats(`include "../${basename(dirname(file))}/${basename(file)}"`);
    return {
      url: nats.url,
      env: { SHISHI_NATS_USER: "u", SHISHI_NATS_PASSWORD: "right-password" },
      happen: async (collector) => {
        write("another-password");
        process.kill(nats.pid, "SIGHUP");
        await says(collector, "nats: connection lost");
        await eventually(() => assert.match(collector.stderr(), /refuses these credentials/), {
          withinMs: 20_000,
        });
        write("right-password");
        process.kill(nats.pid, "SIGHUP");
      },
      close: async () => {
        await nats.close();
        removeDir(dirname(file));
      },
    };
  },
  "floods: 10,000 commands a second, 1 MB payloads, answers that are answered": async () => {
    const nats = await startNats();
    return {
      url: nats.url,
      slowestMs: SLOWEST_IN_FLOOD_MS,
      happen: () => flood(nats, FLOOD_S),
      close: nats.close,
    };
  },
};

/** Every command but pause and stop, with every payload that nobody should send. */
async function flood(nats: Nats, seconds: number): Promise<void> {
  const [{ connection, close }, echo] = [await asker(nats.url), await asker(nats.url)];
  // Each answer becomes two questions whose answers come here again.
  echo.connection.subscribe("loop", {
    callback: () => {
      for (let n = 0; n < 2; n++) echo.connection.publish("shishi.status", "", { reply: "loop" });
    },
  });
  const noise = crypto.getRandomValues(new Uint8Array(512));
  const large = new Uint8Array(1024 * 1024);
  const endMs = performance.now() + seconds * 1000;
  let sent = 0;
  for (let tick = 0; performance.now() < endMs; tick++) {
    for (let n = 0; n < 500; n++) {
      connection.publish("shishi.status", noise, { reply: "nobody.reads.this" });
      connection.publish("shishi.flush", noise);
    }
    connection.publish("shishi.status", large, { reply: "loop" });
    connection.publish("shishi.resume.default", large, { reply: "shishi.stop" });
    connection.publish("shishi.explode", large);
    sent += 1_003;
    await connection.flush();
    const dueMs = endMs - seconds * 1000 + (tick + 1) * 100;
    await pause(Math.max(0, dueMs - performance.now()));
  }
  say("flood", { commands: sent, seconds });
  await close();
  await echo.close();
}

describe("a NATS that", () => {
  let clickhouse: ClickHouse;
  const outcomes = new Map<string, Promise<void>>();
  before(async () => {
    clickhouse = await startClickHouse();
    for (const [at, [name, start]] of Object.entries(faults).entries()) {
      const outcome = suffer(`fault_${at}`, start);
      // Told by the test of its name.
      outcome.catch(() => {});
      outcomes.set(name, outcome);
    }
  });
  after(async () => {
    await Promise.allSettled(outcomes.values());
    await clickhouse.close();
  });

  for (const name of Object.keys(faults)) {
    test(name, { timeout: (FAULT_S + 120) * 1000 }, () => outcomes.get(name));
  }

  async function suffer(table: string, start: () => Promise<Fault>): Promise<void> {
    const fault = await start();
    const enough = new AbortController();
    let collector: Shishi | null = null;
    try {
      collector = await startShishi({
        args: ["--flush-interval", "200ms", "--id", table, "--table", table],
        env: {
          SHISHI_CLICKHOUSE_URL: clickhouse.url,
          SHISHI_NATS_URL: fault.url,
          ...fault.env,
        },
      });
      await ready(collector);
      await says(collector, "nats: connected");
      const loading = load({
        url: collector.url,
        clients: 2,
        events: 10_000_000,
        eventsPerRequest: 10,
        rowsPerSecond: 300,
        signal: enough.signal,
      });
      const timing = time(collector, enough.signal);
      await pause(WARM_UP_MS);
      const rssMiB = await rssOf(collector);
      const calm = timing.since();

      await fault.happen(collector);
      const stormy = timing.since();
      const overMs = Date.now();
      await eventually(() => answers(fault, table), { withinMs: TOLD_WITHIN_MS });
      const backMs = Math.max(0, lastConnectedMs(collector) - overMs);
      const grownMiB = await rssOf(collector) - rssMiB;
      say(table, {
        calm_p99_ms: calm.p99,
        p99_ms: stormy.p99,
        back_ms: backMs,
        grownMiB,
      });

      enough.abort();
      const books = await loading;
      assert.deepEqual([...books.statuses.keys()], [202]);
      assert.equal(books.unanswered.size, 0);
      assert.ok(books.acknowledged.size > 1_000, `${books.acknowledged.size} acknowledged`);
      const slowestMs = fault.slowestMs ?? SLOWEST_MS;
      assert.ok(stormy.p99 < patient(slowestMs), `p99 of ${stormy.p99} ms, ${calm.p99} ms before`);
      assert.ok(backMs < patient(BACK_WITHIN_MS), `control was back after ${backMs} ms`);
      assert.ok(grownMiB < MAX_GROWTH_MIB, `memory grew by ${grownMiB} MiB`);
      await stopsOnce(collector, fault, table);
      const stored = await storedIds(clickhouse, table);
      assert.deepEqual(compare(books, stored), { missing: 0, doubled: 0, uninvited: 0 });
    } finally {
      enough.abort();
      await collector?.close();
      await fault.close();
    }
  }

  const shishi = (fault: Fault, ...argv: string[]) =>
    runShishi(argv, { env: { SHISHI_NATS_URL: fault.url, ...fault.env } });

  async function answers(fault: Fault, id: string): Promise<void> {
    const target = `default.${id}`;
    const { code, stderr } = await shishi(fault, "status", "--target", target, "--timeout", "3s");
    assert.equal(code, 0, stderr);
  }

  async function stopsOnce(collector: Shishi, fault: Fault, id: string): Promise<void> {
    const { code, stdout, stderr } = await shishi(fault, "stop", "--target", `default.${id}`);
    assert.equal(code, 0, stderr);
    assert.match(stdout, /\n1 of 1 stopped\n$/);
    assert.equal((await collector.exited).code, 0);
    const { held, lost } = ledgerAtEnd(collector);
    assert.deepEqual([held, lost], [0, 0]);
    const count = (message: string) =>
      collector.lines().filter((line) => line["message"] === message).length;
    assert.equal(count("draining"), 1);
  }
});

/** By its log, epoch milliseconds. */
function lastConnectedMs(collector: Shishi): number {
  const lines = collector.lines().filter((line) => line["message"] === "nats: connected");
  return Date.parse(String(lines.at(-1)?.["time"]));
}

async function rssOf(collector: Shishi): Promise<number> {
  const bytes = sum(await metrics(collector), "process_resident_memory_bytes");
  return Math.round(bytes / 1024 / 1024);
}

/** Posts one event after the other; `since` gives how long those took that ended since it was asked. */
function time(collector: Shishi, signal: AbortSignal): { since(): { readonly p99: number } } {
  let tookMs: number[] = [];
  void (async () => {
    while (!signal.aborted) {
      const startedMs = performance.now();
      await collector.post({ eventType: "timed" }).catch(() => {});
      tookMs.push(performance.now() - startedMs);
      await pause(20);
    }
  })();
  return {
    since() {
      const sorted = tookMs.sort((a, b) => a - b);
      tookMs = [];
      assert.ok(sorted.length > 0, "not one request was answered");
      return { p99: Math.round(sorted[Math.floor(sorted.length * 0.99)] ?? 0) };
    },
  };
}
