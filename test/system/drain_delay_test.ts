/**
 * Going away behind a balancer: it sends on until it has looked at `/readyz` again, and what it sends
 * meanwhile is taken.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type FakeClickHouse, startFakeClickHouse } from "../kit/fake_clickhouse.ts";
import { openRaw, rawRequest } from "../kit/raw_http.ts";
import { BUILDS, type Shishi, startShishi } from "../kit/shishi.ts";
import { eventually, patient } from "../kit/wait.ts";
import { ledgerAtEnd, stopBy } from "./around.ts";

const ROW = JSON.stringify({ n: 1 });

/** One row on a connection of its own: the status, or null where the connection is refused. */
async function postAnew(shishi: Shishi): Promise<number | null> {
  try {
    const connection = await openRaw(shishi.url);
    connection.send(rawRequest("POST", "/events/rows", {}, ROW));
    const answer = await connection.answer();
    await connection.close();
    return answer?.status ?? null;
  } catch {
    return null;
  }
}

async function unready(shishi: Shishi): Promise<void> {
  await eventually(async () => {
    const { status, json } = await shishi.get("/readyz");
    assert.deepEqual([status, json.reasons[0]], [503, "draining"]);
  }, { withinMs: 5_000, everyMs: 5 });
}

describe("drain-delay", () => {
  let fake: FakeClickHouse;
  before(async () => {
    fake = await startFakeClickHouse();
    fake.createTable("rows", { n: "UInt32" });
  });
  after(() => fake.close());

  for (const binary of BUILDS) {
    const start = (delay: string) =>
      startShishi({
        binary,
        args: ["--drain-delay", delay, "--clickhouse-url", fake.url, "--tables", "rows"],
      });
    const where = binary ? " (binary)" : "";

    test(`events are taken until it is over, and every connection is the last${where}`, async () => {
      const shishi = await start("1500ms");
      try {
        const kept = await openRaw(shishi.url);
        const post = async () => {
          kept.send(rawRequest("POST", "/events/rows", {}, ROW));
          return await kept.answer();
        };
        const before = await post();
        assert.deepEqual([before?.status, before?.headers.get("connection")], [202, undefined]);

        const fromMs = performance.now();
        shishi.signal("SIGTERM");
        await unready(shishi);
        const last = await post();
        assert.deepEqual([last?.status, last?.headers.get("connection")], [202, "close"]);
        // One of the runtimes leaves it to the client to hang up.
        await kept.close();
        let taken = 2;
        let lastTakenMs = 0;
        for (;;) {
          const status = await postAnew(shishi);
          if (status !== 202) break;
          taken++;
          lastTakenMs = performance.now() - fromMs;
        }
        assert.ok(taken > 5, `${taken} taken`);
        assert.ok(lastTakenMs > 1_300 && lastTakenMs < patient(1_700), `last at ${lastTakenMs} ms`);
        assert.deepEqual(await shishi.exited, { code: 0, signal: null });
        const { received, stored } = ledgerAtEnd(shishi);
        assert.deepEqual([received, stored], [taken, taken]);
      } finally {
        await shishi.close();
      }
    });

    test(`a second signal skips it${where}`, async () => {
      const shishi = await start("1h");
      try {
        shishi.signal("SIGTERM");
        await unready(shishi);
        assert.equal(await postAnew(shishi), 202);
        const { code, tookMs } = await stopBy(shishi);
        assert.equal(code, 0);
        assert.ok(tookMs < patient(2_000), `took ${tookMs} ms`);
        assert.equal(ledgerAtEnd(shishi)["stored"], 1);
      } finally {
        await shishi.close();
      }
    });
  }
});
