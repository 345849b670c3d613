/**
 * Bad input over real sockets: each gets its answer, the next good request is taken, the process lives
 * and its memory does not grow, and ClickHouse ends up with exactly what was accepted.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { connect } from "node:net";
import { after, before, describe, test } from "node:test";
import { gzipSync } from "node:zlib";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { type Shishi, startShishi } from "../kit/shishi.ts";
import { eventually } from "../kit/wait.ts";

const good = '{"eventType":"good"}';
/** 16 members of 64 MiB: 1 GiB once unpacked. */
const bomb = () => Buffer.concat(Array(16).fill(gzipSync(Buffer.alloc(64 * 1024 * 1024))));

type Case = readonly [
  name: string,
  status: number,
  accepted: number,
  body: string | Uint8Array,
  headers?: Record<string, string>,
];

const CASES: readonly Case[] = [
  ["empty body", 400, 0, ""],
  ["an open brace", 400, 0, "{"],
  ["a number", 400, 0, "5"],
  ["a string", 400, 0, '"x"'],
  ["10,000 nested brackets", 400, 0, "[".repeat(10_000) + "]".repeat(10_000)],
  ["NUL bytes", 202, 1, `\0\0\n${good}`],
  ["invalid UTF-8 in one row", 202, 1, Buffer.from(`{"eventType":"\xff"}\n${good}`, "latin1")],
  ["a lone surrogate", 202, 1, '{"eventType":"s","userId":"\\ud800"}'],
  ["a key twice", 202, 1, '{"eventType":"a","eventType":"b"}'],
  ["__proto__", 202, 1, `{"eventType":"p","__proto__":{}}\n${good}`],
  ["NaN", 202, 1, `{"eventType":"n","properties":{"a":NaN}}\n${good}`],
  ["an id that is no UUID", 202, 1, `{"eventType":"i","id":"7"}\n${good}`],
  ["1900", 202, 1, '{"eventType":"t","timestamp":"1900-01-01T00:00:00Z"}'],
  ["2300", 400, 0, '{"eventType":"t","timestamp":"2300-01-01T00:00:00Z"}'],
  ["a string of 1 MB", 202, 1, JSON.stringify({ eventType: "l", userId: "x".repeat(1e6) })],
  ["20 MB", 413, 0, Buffer.alloc(20_000_000, "x")],
  ["a gzip bomb", 413, 0, bomb(), { "content-encoding": "gzip" }],
  ["torn gzip", 400, 0, gzipSync(good).subarray(0, 20), { "content-encoding": "gzip" }],
  ["an unknown encoding", 415, 0, good, { "content-encoding": "lzma" }],
];

describe("bad input over sockets", () => {
  let clickhouse: ClickHouse;
  let shishi: Shishi;
  let accepted = 0;
  before(async () => {
    clickhouse = await startClickHouse();
    shishi = await startShishi({ args: ["--clickhouse-url", clickhouse.url] });
  });
  after(async () => {
    await shishi.close();
    await clickhouse.close();
  });

  const rssBytes = async () => {
    const { text } = await shishi.get("/metrics");
    return Number(/^process_resident_memory_bytes (\S+)/m.exec(text)?.[1]);
  };
  const takesGood = async () => {
    const answer = await shishi.post(good);
    assert.equal(answer.status, 202, answer.text);
    accepted++;
  };

  for (const [name, status, rows, body, headers = {}] of CASES) {
    test(name, async () => {
      const answer = await shishi.post(body, { headers });
      assert.equal(answer.status, status, answer.text);
      assert.equal(answer.json?.accepted ?? 0, rows, answer.text);
      if (status >= 400) assert.ok(answer.json?.error ?? answer.json?.errors?.length, "says why");
      accepted += rows;
      await takesGood();
    });
  }

  test("another method, another path", async () => {
    assert.equal((await shishi.get("/events")).status, 405);
    assert.equal((await shishi.get("/nothing")).status, 404);
    await takesGood();
  });

  test("bodies that never come whole: nothing is taken, nobody else waits", async () => {
    const head = (length: string) =>
      `POST /events HTTP/1.1\r\nHost: h\r\nContent-Length: ${length}\r\n\r\n`;
    const { port } = new URL(shishi.url);
    const sockets = Array.from({ length: 50 }, (_, n) => {
      const socket = connect(Number(port), "127.0.0.1");
      socket.on("error", () => {});
      // Some promise more than they send, some send nonsense, some trickle.
      socket.write(n % 5 === 0 ? head("abc") : head("1000") + good);
      return socket;
    });
    const trickle = setInterval(() => sockets.forEach((socket) => socket.write("{")), 100);
    for (let n = 0; n < 20; n++) {
      const began = performance.now();
      await takesGood();
      assert.ok(performance.now() - began < 2_000, "a good request had to wait");
    }
    clearInterval(trickle);
    for (const socket of sockets) socket.destroy();
    await takesGood();
  });

  test("memory does not grow, and ClickHouse holds exactly what was accepted", async () => {
    const round = async () => {
      for (const [, , rows, body, headers = {}] of CASES) {
        await shishi.post(body, { headers });
        accepted += rows;
      }
    };
    await round();
    const before = await rssBytes();
    for (let n = 0; n < 4; n++) await round();
    const grownMiB = (await rssBytes() - before) / 1024 ** 2;
    assert.ok(grownMiB < 100, `grown by ${grownMiB} MiB`);
    await eventually(async () => {
      assert.equal(await clickhouse.query("SELECT count() FROM analytics_events"), `${accepted}`);
    }, { withinMs: 15_000 });
    const { ledger } = await shishi.status();
    assert.deepEqual([ledger.stored, ledger.dead, ledger.lost], [accepted, 0, 0]);
  });
});
