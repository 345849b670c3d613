/** One exchange under every way in which a network can fail it. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, test } from "node:test";
import { createPost, type Exchange } from "../../src/kernel/http.ts";
import { verdictOf } from "../../src/deliver/verdict.ts";
import {
  type FakeClickHouse,
  type Misbehaviour,
  startFakeClickHouse,
} from "../kit/fake_clickhouse.ts";
import { freePort } from "../kit/free_port.ts";
import { patient } from "../kit/wait.ts";
import { deliverTo, never, realClock } from "../deliver/kit.ts";

const post = createPost({ fetch: (url, init) => fetch(url, init), clock: realClock });

function exchange(url: string, part: Partial<Exchange> = {}): Exchange {
  return { method: "POST", url, headers: {}, body: "x", timeoutMs: 5000, ...part };
}

async function withFake(work: (fake: FakeClickHouse) => Promise<void>): Promise<void> {
  const fake = await startFakeClickHouse();
  try {
    fake.createTable("t", { a: "UInt32" });
    await work(fake);
  } finally {
    await fake.close();
  }
}

const insertUrl = (fake: FakeClickHouse) =>
  `${fake.url}/?query=${encodeURIComponent("INSERT INTO `d`.`t` FORMAT JSONEachRow")}`;

describe("post", () => {
  const failing: [string, Misbehaviour][] = [
    ["no answer at all", { kind: "hang" }],
    ["a body that stalls", { kind: "half", then: "hang" }],
    ["a broken connection", { kind: "reset" }],
    ["half an answer", { kind: "half", then: "reset" }],
  ];
  for (const [name, misbehaviour] of failing) {
    test(`${name} is the network, in one line, within the timeout`, () =>
      withFake(async (fake) => {
        fake.misbehave(misbehaviour);
        const began = performance.now();
        const answer = await post(exchange(insertUrl(fake), { body: '{"a":1}\n', timeoutMs: 300 }));
        assert.ok(!answer.ok);
        assert.match(answer.problem, /^[^\n]+$/);
        assert.equal(answer.aborted, false);
        assert.ok(performance.now() - began < patient(2000));
        assert.equal(verdictOf(answer, 0).kind, "transient");
      }));
  }

  test("a refused connection", async () => {
    const answer = await post(exchange(`http://127.0.0.1:${await freePort()}/`));
    assert.ok(!answer.ok && answer.problem.length > 5);
  });

  test("the caller's signal ends it, before and during", () =>
    withFake(async (fake) => {
      fake.misbehave({ kind: "hang" });
      const abort = new AbortController();
      const pending = post(exchange(insertUrl(fake), { body: "", signal: abort.signal }));
      abort.abort();
      const during = await pending;
      assert.ok(!during.ok && during.aborted);
      const before = await post(exchange(insertUrl(fake), { signal: abort.signal }));
      assert.ok(!before.ok && before.aborted);
    }));

  test("given up while the body is compressed, nothing is sent, and nothing reads it any more", async () => {
    let asked = 0;
    const counting = createPost({
      fetch: (url, init) => {
        asked++;
        return fetch(url, init);
      },
      clock: realClock,
    });
    const abort = new AbortController();
    const body = Array.from({ length: 16 }, () => new Uint8Array(1024 * 1024));
    const told = counting(
      exchange("http://127.0.0.1:1/", { body, gzip: true, signal: abort.signal }),
    );
    abort.abort();
    assert.deepEqual(await told, { ok: false, problem: "given up", aborted: true, unsent: true });
    for (const { buffer } of body) buffer.transfer(0);
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.equal(asked, 0);
  });

  test("a redirect is not followed", () =>
    withFake(async (fake) => {
      fake.misbehave({ kind: "answer", status: 302, headers: { Location: `${fake.url}/ping` } });
      const answer = await post(exchange(insertUrl(fake), { body: '{"a":1}\n' }));
      assert.equal(answer.ok && answer.value.status, 302);
      assert.equal(fake.pings(), 0);
      const verdict = verdictOf(answer, 0);
      assert.ok("message" in verdict && verdict.message.includes(new URL(fake.url).host));
    }));

  test("the answer is read up to its bound", () =>
    withFake(async (fake) => {
      fake.misbehave({ kind: "answer", status: 500, body: "y".repeat(5_000_000) });
      const answer = await post(exchange(insertUrl(fake)));
      assert.ok(answer.ok);
      assert.equal(answer.value.body.length, 64 * 1024);
      assert.equal(answer.value.cut, true);
    }));

  test("large bodies are compressed, small ones are not", async () => {
    const seen: [string | undefined, number][] = [];
    const server = createServer((request, response) => {
      let length = 0;
      request.on("data", (part: Uint8Array) => length += part.length);
      request.on("end", () => {
        seen.push([request.headers["content-encoding"], length]);
        response.end();
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => resolve()));
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
    await post(exchange(url, { body: [new Uint8Array(500)], gzip: true }));
    await post(
      exchange(url, { body: [new Uint8Array(200_000), new Uint8Array(300_000)], gzip: true }),
    );
    await post(exchange(url, { body: [new Uint8Array(200_000), new Uint8Array(300_000)] }));
    await new Promise<void>((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
    assert.deepEqual(seen[0], [undefined, 500]);
    assert.equal(seen[1]?.[0], "gzip");
    assert.ok((seen[1]?.[1] ?? Infinity) < 10_000);
    assert.deepEqual(seen[2], [undefined, 500_000]);
  });

  test("short pieces of a body are sent together, long ones as they are, all in their order", async () => {
    const sent: Uint8Array[] = [];
    const post = createPost({
      fetch: async (_url, init) => {
        for await (const piece of init.body as ReadableStream<Uint8Array>) sent.push(piece);
        return new Response("");
      },
      clock: realClock,
    });
    let next = 0;
    const long = 64 * 1024;
    const pieces = [1, 2000, 3000, long, 70_000, 5, long - 5, 1, 40_000, 30_000]
      .map((length) => new Uint8Array(length).map(() => next++ % 251));
    assert.ok((await post(exchange("http://127.0.0.1/", { body: pieces }))).ok);
    assert.deepEqual(sent.map(({ length }) => length), [
      ...[5001, long, 70_000],
      ...[long, 40_001, 30_000],
    ]);
    assert.equal(sent[1], pieces[3]);
    assert.equal(sent[2], pieces[4]);
    assert.deepEqual(Buffer.concat(sent), Buffer.concat(pieces));
  });

  test("a proxy that takes no body of unknown length gets one with its length", async () => {
    const seen: string[] = [];
    const server = createServer((request, response) => {
      const length = request.headers["content-length"];
      if (length === undefined) return void response.writeHead(411).end("length required");
      request.on("data", (part: Uint8Array) => seen.push(Buffer.from(part).toString()));
      request.on("end", () => response.end());
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => resolve()));
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
    const rows = [1, 2].map((a) => new TextEncoder().encode(`{"a":${a}}\n`));
    const answer = await post(exchange(url, { body: rows }));
    server.close();
    server.closeAllConnections();
    assert.equal(answer.ok && answer.value.status, 200);
    assert.equal(seen.join(""), '{"a":1}\n{"a":2}\n');
  });

  test("credentials travel in headers, never in the URL", () =>
    withFake(async (fake) => {
      const url = fake.url.replace("//", "//us%2Fer:geheim%40%C3%BC@") + "/db";
      const deliver = deliverTo([url]);
      const body = [new TextEncoder().encode('{"a":1}\n')];
      await deliver.inserter.insert({ table: "t", shape: "row", body, rows: 1, token: "x" }, never);
      await deliver.close();
      const [insert] = fake.inserts;
      assert.equal(insert?.headers["x-clickhouse-user"], "us/er");
      const key = Buffer.from(String(insert?.headers["x-clickhouse-key"]), "latin1").toString();
      assert.equal(key, "geheim@ü");
      assert.doesNotMatch(insert?.url ?? "", /geheim|us%2Fer/);
    }));

  test("every INSERT pins what it relies on", () =>
    withFake(async (fake) => {
      const deliver = deliverTo([`${fake.url}/db`]);
      const body = [new TextEncoder().encode('{"a":1}\n')];
      await deliver.inserter.insert(
        { table: "t", shape: "row", body, rows: 1, token: "tok" },
        never,
      );
      await deliver.close();
      const settings = fake.inserts[0]?.settings;
      const pinned = {
        async_insert: "0",
        wait_end_of_query: "1",
        date_time_input_format: "best_effort",
        input_format_skip_unknown_fields: "0",
        insert_deduplicate: "1",
        insert_deduplication_token: "tok",
      };
      for (const [name, value] of Object.entries(pinned)) assert.equal(settings?.get(name), value);
    }));

  test("a setting that the server does not know does not travel with an INSERT", () =>
    withFake(async (fake) => {
      fake.old(["async_insert", "input_format_null_as_default"]);
      const deliver = deliverTo([`${fake.url}/db`]);
      const body = [new TextEncoder().encode('{"a":1}\n')];
      const request = { table: "t", shape: "row" as const, body, rows: 1, token: "tok" };
      assert.deepEqual(await deliver.inserter.insert(request, never), { kind: "stored" });
      const sent = fake.inserts.length;
      assert.deepEqual(await deliver.inserter.insert(request, never), { kind: "stored" });
      assert.equal(fake.inserts.length, sent + 1, "it is known by now");
      const last = fake.inserts.at(-1);
      assert.equal(last?.settings.has("async_insert"), false);
      assert.equal(last?.settings.has("input_format_null_as_default"), false);
      assert.equal(last?.settings.get("wait_end_of_query"), "1");
      await deliver.close();
    }));
});
