/**
 * Clients that mean harm, or know no better, over real sockets: what no HTTP library would send. The
 * process lives, others are served meanwhile, nothing is stored that was not accepted, and memory does
 * not grow.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import process from "node:process";
import { after, before, describe, test } from "node:test";
import { brotliBomb, gzipBomb, zstdBomb } from "../kit/bombs.ts";
import { testOnce } from "../kit/once.ts";
import { type RawConnection, rawRequest } from "../kit/raw_http.ts";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { eventually, patient } from "../kit/wait.ts";
import { say } from "./books.ts";
import { event, Front } from "./front.ts";
import { openSlow, type SlowClient } from "./slow_clients.ts";

const MIB = 1024 ** 2;
const BODY = event("nobody");

function post(headers: string, body = BODY, start = "POST /events HTTP/1.1"): string {
  return `${start}\r\nHost: x\r\n${headers}\r\n${body}`;
}
const length = `Content-Length: ${BODY.length}\r\n`;
const chunked = "Transfer-Encoding: chunked\r\n";
const manyHeaders = Array.from({ length: 10_000 }, (_, n) => `X-${n}: y\r\n`).join("");

/** Neither server makes a request of these. */
const NO_REQUESTS: readonly (readonly [string, string | Uint8Array])[] = [
  ["a length that is no number", post("Content-Length: many\r\n")],
  ["a negative length", post("Content-Length: -5\r\n")],
  ["a length with a sign", post(`Content-Length: +${BODY.length}\r\n`)],
  ["a length beyond every number", post(`Content-Length: ${"9".repeat(30)}\r\n`)],
  ["two lengths", post(`${length}Content-Length: 5\r\n`)],
  ["a list of lengths", post(`Content-Length: ${BODY.length}, ${BODY.length}\r\n`)],
  ["a length and chunks", post(length + chunked, `5\r\n{"a":\r\n0\r\n\r\n`)],
  ["an unknown transfer encoding", post(`${length}Transfer-Encoding: magic\r\n`)],
  ["a chunk of no size", post(chunked, `zz\r\n${BODY}\r\n0\r\n\r\n`)],
  ["a chunk beyond every size", post(chunked, `${"f".repeat(17)}\r\n${BODY}\r\n0\r\n\r\n`)],
  ["a header without a colon", post(`${length}hello\r\n`)],
  ["a blank before the colon", post(`Content-Length : ${BODY.length}\r\n`)],
  ["a NUL in a header", post(`${length}X: a\0b\r\n`)],
  ["ten thousand headers", post(length + manyHeaders)],
  ["a header of a megabyte", post(`${length}X: ${"y".repeat(MIB)}\r\n`)],
  ["a path of a megabyte", post(length, BODY, `POST /events/${"x".repeat(MIB)} HTTP/1.1`)],
  ["a method of a hundred kilobytes", post(length, BODY, `${"A".repeat(1e5)} /events HTTP/1.1`)],
  ["HTTP/0.9", "GET /healthz\r\n\r\n"],
  ["a TLS greeting", Uint8Array.of(22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3)],
  ["noise", new Uint8Array(1000).map((_, n) => n * 37)],
];

/** How often a client of `/healthz` is answered while `work` goes on, and how long it waits at most. */
async function others(front: Front, work: () => Promise<void>) {
  const connection = await front.open();
  let answers = 0;
  let longestMs = 0;
  let working = true;
  const pinging = (async () => {
    while (working) {
      const startedMs = performance.now();
      connection.send(rawRequest("GET", "/healthz"));
      assert.equal((await connection.answer())?.status, 200);
      longestMs = Math.max(longestMs, performance.now() - startedMs);
      answers++;
    }
  })();
  try {
    await work();
  } finally {
    working = false;
    await pinging;
    await connection.close();
  }
  return { answers, longestMs: Math.round(longestMs) };
}

/** Three megabytes of one piece, over and over, and what stands around it. */
const flood = (piece: string, before = "", behind = "") =>
  before + piece.repeat(Math.floor(3 * MIB / piece.length)) + behind;
const FLOODS: readonly (readonly [string, string | Uint8Array])[] = [
  ["letters", flood("x\n")],
  ["unknown keys", flood('{"eventTyp":"xx"}\n')],
  ["bytes that are no text", Buffer.from(flood('{"eventType":"\xff"}\n'), "latin1")],
  ["an array of empty objects", flood("{},", "[", "{}]")],
];

/** On a connection of its own unless one is given. */
async function refused(front: Front, request: Uint8Array, connection?: RawConnection) {
  connection?.send(request);
  const answer = await (connection?.answer() ?? front.ask(request));
  assert.ok(answer !== null && answer.status >= 400, `${answer?.status}`);
}

/** The runtime of the binary ends connections that get nowhere, the other one does not. */
const ENDS_SLOW = process.versions.deno === undefined;

describe("abuse", () => {
  let clickhouse: ClickHouse;
  let front: Front;
  let withTls: Front;
  /** They wait while the other tests run. */
  let slow: readonly SlowClient[];
  before(async () => {
    clickhouse = await startClickHouse();
    front = await Front.start(clickhouse, "abuse");
    withTls = await Front.start(clickhouse, "abuse", "tls");
    slow = (await Promise.all([front, withTls].map(({ shishi }) => openSlow(shishi.url)))).flat();
  });
  after(async () => {
    for (const client of slow) client.close();
    await withTls.close();
    await front.close();
    await clickhouse.close();
  });

  for (const [name, bytes] of NO_REQUESTS) {
    test(`refused: ${name}`, async () => {
      const answer = await front.ask(bytes);
      assert.ok(answer === null || answer.status >= 400, `${answer?.status} ${answer?.text}`);
      await front.good();
    });
  }

  test("a body that is longer than it said: the row is cut, the rest is no request", async () => {
    const answer = await front.ask(post("Content-Length: 9\r\n"));
    // One of the runtimes ends the connection over the rest before the row is looked at.
    if (answer !== null) assert.deepEqual([answer.status, answer.json?.accepted ?? 0], [400, 0]);
    else assert.ok(ENDS_SLOW);
    await front.good();
  });

  for (const framing of [`Content-Length: ${BODY.length + 1}\r\n`, chunked]) {
    test(`a body that ends too early, ${framing.trim()}`, async () => {
      const connection = await front.open();
      const begun = framing === chunked ? `${BODY.length.toString(16)}\r\n${BODY}` : BODY;
      connection.send(post(framing, begun));
      connection.end();
      const answer = await connection.answer();
      assert.ok(answer === null || answer.status === 400, `${answer?.status}`);
      await connection.ended;
      await front.good();
    });
  }

  test("200 clients go away in the middle", async () => {
    const connections = await Promise.all(Array.from({ length: 200 }, () => front.open()));
    connections.forEach((connection, n) => {
      if (n % 2 === 0) connection.send(post("Content-Length: 1000000\r\n"));
      else connection.send(post(chunked, `100000\r\n${BODY}\n`));
    });
    await front.good();
    await Promise.all(connections.map((connection) => connection.close()));
    await front.good();
  });

  test("Expect: 100-continue", async () => {
    await front.good(undefined, { Expect: "100-continue" });
    const large = { "Content-Length": "20000000", Expect: "100-continue" };
    const answer = await front.ask(rawRequest("POST", "/events", large));
    assert.equal(answer?.status, 413);
  });

  test("20 MB in chunks", async () => {
    const connection = await front.open();
    connection.send(post(chunked, ""));
    for (let n = 0; n < 20; n++) connection.send(`f4240\r\n${" ".repeat(1e6)}\r\n`);
    const answer = await connection.answer();
    assert.equal(answer?.status, 413);
    assert.match(answer.json.error, /larger than 10485760 bytes/);
    await connection.close();
    await front.good();
  });

  test("pipelined requests are answered in order, or the connection ends", async () => {
    const users = Array.from({ length: 20 }, () => front.user());
    const connection = await front.open();
    connection.send(...users.map((user) => rawRequest("POST", "/events", {}, event(user))));
    front.unsure(...users);
    for (const user of users) {
      const answer = await connection.answer();
      if (answer === null) break;
      assert.equal(answer.status, 202);
      front.accept(user);
    }
    await connection.close();
    await front.good();
  });

  test("HTTP/1.0 without a host, as health checks send it", async () => {
    assert.equal((await front.ask("GET /healthz HTTP/1.0\r\n\r\n"))?.status, 200);
    const user = front.user();
    const body = event(user);
    const answer = await front.ask(
      `POST /events HTTP/1.0\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    );
    assert.equal(answer?.status, 202);
    front.accept(user);
  });

  test("three hundred connections that stay", async () => {
    const connections = await Promise.all(Array.from({ length: 300 }, () => front.open()));
    for (let wave = 0; wave < 2; wave++) {
      await Promise.all(connections.map((connection) => front.good(connection)));
    }
    await Promise.all(connections.map((connection) => connection.close()));
  });

  for (const [name, body] of FLOODS) {
    testOnce(`others are served during megabytes of ${name}`, async () => {
      const { answers, longestMs } = await others(front, async () => {
        const answer = await front.ask(rawRequest("POST", "/events", {}, body));
        assert.equal(answer?.status, 400, answer?.text);
        assert.ok(answer.text.length < 30_000);
      });
      say(`megabytes of ${name}`, { answers, longestMs });
      // A body that is decoded in one go lets in no more than three.
      assert.ok(answers >= 15, `${answers} answers`);
    });
  }

  test("memory does not grow", async () => {
    const bombs = [["gzip", gzipBomb()], ["br", brotliBomb()], ["zstd", zstdBomb()]] as const;
    const rssMiB: number[] = [];
    for (let round = 0; round < 9; round++) {
      const names = Array.from({ length: 500 }, (_, n) => `${round}-${n}`);
      const large = [
        ...bombs.map(([name, body]) =>
          rawRequest("POST", "/events", { "Content-Encoding": name }, body)
        ),
        rawRequest("POST", "/events", {}, new Uint8Array(20e6).fill(32)),
      ];
      for (const request of large) await refused(front, request);
      // Names that nobody had before: none may be kept.
      const connection = await front.open();
      const small = [
        rawRequest("POST", "/events", {}, names.map((name) => `{"${name}":1}\n`).join("")),
        ...names.slice(0, 20).map((name) => rawRequest("POST", `/events/t${name}`, {}, "{}")),
        ...names.slice(0, 20).map((name) => rawRequest("GET", `/${name}?${name}`)),
      ];
      for (const request of small) await refused(front, request, connection);
      await connection.close();
      const leaving = await Promise.all(Array.from({ length: 20 }, () => front.open()));
      for (const connection of leaving) {
        connection.send(post("Content-Length: 9000000\r\n"), Buffer.alloc(100_000, " "));
      }
      await Promise.all(leaving.map((connection) => connection.close()));
      await front.good();
      rssMiB.push(Math.round(await front.rssMiB()));
    }
    say("memory by round", { MiB: rssMiB.join(" ") });
    // In the first three a runtime lets its heap grow to what it likes.
    const early = Math.max(...rssMiB.slice(3, 6));
    const late = Math.min(...rssMiB.slice(6));
    assert.ok(late < early + 32, `from ${early} to ${late} MiB`);
  });

  test("more clients than files: the others are served again when they have gone", async () => {
    const { pid } = front.shishi;
    const limit = (files: string) =>
      assert.equal(spawnSync("prlimit", ["--pid", `${pid}`, `--nofile=${files}`]).status, 0);
    const open = readdirSync(`/proc/${pid}/fd`).length;
    limit(`${open + 50}:`);
    // The last ones may be turned away.
    const clients = await Promise.allSettled(Array.from({ length: 100 }, () => front.open()));
    // As long as it takes until no file is left to let somebody in.
    await eventually(() => assert.ok(readdirSync(`/proc/${pid}/fd`).length >= open + 40), {
      withinMs: 10_000,
    });
    for (const client of clients) if (client.status === "fulfilled") await client.value.close();
    limit(`${open + 1000}:`);
    await eventually(() => front.good(), { withinMs: 10_000 });
  });

  if (ENDS_SLOW) {
    test("clients that get nowhere are let go after about 12 s, TLS or not", async () => {
      const longestS = new Map<string, number>();
      for (const { name, endedS } of slow) {
        const seconds = await endedS;
        longestS.set(name, Math.max(longestS.get(name) ?? 0, seconds));
      }
      say(
        "let go after",
        Object.fromEntries([...longestS].map(([name, s]) => [name, s.toFixed(1)])),
      );
      assert.ok(Math.max(...longestS.values()) < patient(20));
    });
  }

  test("ClickHouse holds exactly what was accepted", () => front.assertExact());
});
