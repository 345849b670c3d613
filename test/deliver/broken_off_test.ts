/**
 * INSERTs whose body is not sent to its end: because the answer came first, or because it was given up.
 * What was sent of one must never look like a whole one, and an answer that came first is the answer.
 */

import assert from "node:assert/strict";
import { createServer, type Socket } from "node:net";
import type { AddressInfo } from "node:net";
import { describe, test } from "node:test";
import { createPost, type Exchange } from "../../src/kernel/http.ts";
import { verdictOf } from "../../src/deliver/verdict.ts";
import { createFetch } from "../../src/runtime/fetch.ts";
import { startFakeClickHouse } from "../kit/fake_clickhouse.ts";
import { deliverTo, never, realClock } from "./kit.ts";

const post = createPost({ fetch: createFetch({ pooled: false }), clock: realClock });

/** More than the buffers of a connection hold; each piece ends where a row does. */
const PIECES = Array.from(
  { length: 80 },
  (_, piece) => new TextEncoder().encode(`{"a":${piece}}\n`.repeat(25_000)),
);
const BYTES = PIECES.reduce((sum, { length }) => sum + length, 0);

function answer(status: string, ...headers: string[]): string {
  const body = "Code: 27. DB::Exception: Cannot parse input: (at row 1)\n";
  const lines = [`HTTP/1.1 ${status}`, ...headers, `Content-Length: ${body.length}`];
  return `${lines.join("\r\n")}\r\n\r\n${body}`;
}

/**
 * Sends `PIECES` to a server that does `onFirst` with the first bytes, reads no further until the
 * exchange is over, and then all that still comes.
 */
async function insertInto(onFirst: (socket: Socket) => void, part: Partial<Exchange> = {}) {
  const over = Promise.withResolvers<void>();
  let reader: Socket | null = null;
  let length = 0;
  let tail = "";
  const server = createServer((socket) => {
    reader = socket;
    socket.once("data", () => onFirst(socket.pause()));
    socket.on("data", (bytes: Uint8Array) => {
      length += bytes.length;
      tail = (tail + Buffer.from(bytes).toString("latin1")).slice(-16);
    });
    socket.on("error", () => {});
    socket.on("close", () => over.resolve());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => resolve()));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  const got = await post(
    { method: "POST", url, headers: {}, body: PIECES, timeoutMs: 20_000, ...part },
  );
  (reader as Socket | null)?.resume();
  await over.promise;
  server.close();
  assert.ok(length < BYTES, `${length} of ${BYTES} bytes`);
  assert.ok(!tail.endsWith("0\r\n\r\n"), "what was sent looks like a whole INSERT");
  return got;
}

describe("an INSERT that is broken off", () => {
  for (const closes of [false, true]) {
    test(`an answer that comes first counts${closes ? ", also of a server that closes" : ""}`, async () => {
      const got = await insertInto((socket) => {
        if (closes) socket.end(answer("400 Bad Request", "Connection: close"));
        else socket.write(answer("400 Bad Request"));
      });
      assert.ok(got.ok, JSON.stringify(got));
      const verdict = verdictOf(got, 0);
      assert.equal(verdict.kind === "row" && verdict.code, 27);
    });
  }

  test("a redirect that comes first is refused", async () => {
    const got = await insertInto((socket) => {
      socket.write(answer("307 Temporary Redirect", "Location: http://127.0.0.1:1/"));
    });
    assert.equal(got.ok && got.value.status, 307);
  });

  test("given up by the caller, it does not look like a whole one", async () => {
    const abort = new AbortController();
    const got = await insertInto(() => abort.abort(), { signal: abort.signal });
    assert.ok(!got.ok && got.aborted);
  });

  test("too slow, it does not look like a whole one", async () => {
    const got = await insertInto(() => {}, { timeoutMs: 500 });
    assert.ok(!got.ok && !got.aborted);
  });

  test("a server that knows no tokens takes half a plain one for whole: it gets gzip", async () => {
    const fake = await startFakeClickHouse();
    const deliver = deliverTo([`${fake.url}/db`], { compress: "auto" });
    try {
      fake.createTable("t", { a: "UInt32" });
      const body = [new TextEncoder().encode('{"a":1}\n'.repeat(1000))];
      const request = { table: "t", shape: "row", body, rows: 1000 } as const;
      await deliver.inserter.insert({ ...request, token: "x" }, never);
      fake.old(["insert_deduplication_token"]);
      await deliver.inserter.insert({ ...request, token: "y" }, never);
      const encodings = fake.inserts.map(({ headers }) => headers["content-encoding"]);
      assert.deepEqual([encodings[0], encodings.at(-1)], [undefined, "gzip"]);
    } finally {
      await deliver.close();
      await fake.close();
    }
  });
});
