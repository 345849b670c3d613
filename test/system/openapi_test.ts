/**
 * Every example of `/openapi.json` is sent to a real collector and gets the answer that it is said to
 * get; every answer that is described is brought about, and holds to its schema.
 * Runs once: http_answers_test.ts has answers over real sockets on both runtimes.
 */

import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { App } from "../../src/admit/app.ts";
import { done, failed } from "../../src/kernel/result.ts";
import { createLive } from "../../src/page/live.ts";
import { appOn, Script } from "../admit/kit.ts";
import { freePort } from "../kit/free_port.ts";
import { answers, assertDescribed, openapi, type Operation, operations } from "../kit/openapi.ts";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { type Shishi, startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { ScriptedSource } from "../page/kit.ts";
import { holds, ready } from "./around.ts";

const TOKEN = "a-token-for-the-test";
const WITH_TOKEN = { authorization: `Bearer ${TOKEN}` };
/** What was brought about. */
const met = new Set<string>();

let clickhouse: ClickHouse;
/** All is well. */
let well: Shishi;
/** Tokens are set, ClickHouse is away and the backlog is of one row. */
let alone: Shishi;
let lettersDir: string;

before(async () => {
  clickhouse = await startClickHouse();
  await clickhouse.query(
    "CREATE TABLE flights (date DateTime, delay Int32, origin String) ENGINE = MergeTree " +
      "ORDER BY date SETTINGS non_replicated_deduplication_window = 100",
  );
  lettersDir = tempDir("openapi");
  well = await startShishi({
    args: ["--clickhouse-url", clickhouse.url, "--tables=flights", "--data-dir", lettersDir]
      .concat("--pixel"),
  });
  await ready(well);
  alone = await startShishi({
    args: ["--clickhouse-url", `http://127.0.0.1:${await freePort()}`, "--backlog=1"].concat(
      ["--tables=flights", "--max-block-size=1", "--pixel"],
    ),
    env: { SHISHI_AUTH_TOKENS: TOKEN },
  });
});
after(async () => {
  await alone?.close();
  await well?.close();
  removeDir(lettersDir);
  await clickhouse?.close();
});

type Init = RequestInit & { readonly query?: string };

function request({ path, method }: Operation, url: string, { query = "", ...init }: Init = {}) {
  const target = `${url}${path.replace("{table}", "flights")}${query}`;
  return new Request(target, { method: method.toUpperCase(), ...init });
}

/** Asks, and holds the answer to its description. */
async function ask(operation: Operation, shishi: Shishi, init: Init = {}): Promise<number> {
  const response = await fetch(request(operation, shishi.url, init));
  met.add(await assertDescribed(operation, response));
  return response.status;
}

async function askApp(operation: Operation, app: App, init: Init = {}): Promise<number> {
  const asked = request(operation, "http://localhost", init);
  const response = await app.fetch(asked, () => "127.0.0.1");
  met.add(await assertDescribed(operation, response));
  return response.status;
}

function operation(method: string, path: string): Operation {
  return operations.find((one) => one.method === method && one.path === path)!;
}
const isWrite = ({ path, method }: Operation) => path.startsWith("/events") && method === "post";
const isPixel = ({ path, method }: Operation) => path === "/events" && method === "get";
const isOpen = ({ path }: Operation) => ["/", "/shishi.js", "/healthz", "/readyz"].includes(path);
const isQuestion = ({ path }: Operation) => ["/api/metrics", "/api/events"].includes(path);
const GOOD: Readonly<Record<string, string>> = {
  "/events": '{"eventType":"click"}',
  "/events/{table}": '{"delay":1}',
};

interface Example {
  readonly value: unknown;
}

for (const one of operations) {
  const { path, method, described } = one;
  const content = described.requestBody?.content ?? {};
  for (
    const [type, { examples }] of Object.entries<{ examples: Record<string, Example> }>(content)
  ) {
    for (const [name, { value }] of Object.entries(examples)) {
      test(`${method} ${path}: ${name}`, async () => {
        const body = type === "application/json" ? JSON.stringify(value) : String(value);
        const response = await fetch(
          request(one, well.url, { body, headers: { "content-type": type } }),
        );
        const text = await response.clone().text();
        met.add(await assertDescribed(one, response));
        const answer = described.responses[response.status].content["application/json"];
        assert.ok(answer.examples[name], `${name} has no answer of its name: ${text}`);
        assert.deepEqual(JSON.parse(text), answer.examples[name].value);
      });
    }
  }

  const parameters = (described.parameters ?? [])
    .filter((parameter: { in: string; example?: unknown }) =>
      parameter.in === "query" && parameter.example !== undefined
    )
    .map(({ name, example }: { name: string; example: unknown }) =>
      `${name}=${encodeURIComponent(String(example))}`
    );
  if (method === "get" && !isPixel(one)) {
    test(`${method} ${path}: by itself, and with each parameter and all of them`, async () => {
      for (const query of ["", ...parameters, parameters.join("&")]) {
        const init = query === "" ? {} : { query: `?${query}` };
        assert.equal(await ask(one, well, init), 200, query);
      }
    });
  }

  test(`${method} ${path}: another method, and no token`, async () => {
    const other = await fetch(request(one, well.url), {
      method: method === "post" && path !== "/events" ? "GET" : "PUT",
    });
    assert.equal(other.status, 405);
    met.add(await assertDescribed(one, other));
    if (!isOpen(one)) {
      assert.equal(await ask(one, alone, method === "post" ? { body: "" } : {}), 401);
    }
  });
}

for (const one of operations.filter(isWrite)) {
  test(`${one.path}: taken and inserted; not there; too large; packed in an unknown way`, async () => {
    const { example } = one.described.parameters.find(
      ({ name }: { name: string }) => name === "Prefer",
    );
    const body = GOOD[one.path]!;
    assert.equal(await ask(one, well, { body, headers: { prefer: example } }), 200);
    const large = new Uint8Array(10 * 1024 ** 2 + 1);
    assert.equal(await ask(one, well, { body: large }), 413);
    const headers = { "content-encoding": "lzma" };
    assert.equal(await ask(one, well, { body, headers }), 415);
    const key = { "idempotency-key": "openapi" };
    for (const status of [202, 202]) {
      assert.equal(await ask(one, well, { body, headers: key }), status);
    }
    const query = "?key=openapi";
    assert.equal(await ask(one, well, { body: `${body} `, query }), 422);
    if (one.path !== "/events/{table}") return;
    const elsewhere = await fetch(`${well.url}/events/elsewhere`, { method: "POST", body });
    assert.equal(elsewhere.status, 404);
    met.add(await assertDescribed(one, elsewhere));
  });
}

test("an event in an address", async () => {
  const pixel = operations.find(isPixel)!;
  const accept = (types: string) => ({ headers: { accept: types } });
  const query = "?eventType=open&userId=u1&campaign=spring";
  assert.equal(await ask(pixel, well, { query }), 200);
  assert.equal(await ask(pixel, well, { query, ...accept("image/png,image/*;q=0.8") }), 200);
  assert.equal(await ask(pixel, well, { query, ...accept("application/json") }), 204);
  assert.equal(await ask(pixel, well, { query: "?userId=u1" }), 400);
  assert.equal(await ask(pixel, well, { query: `${query}&key=pixel` }), 200);
  assert.equal(await ask(pixel, well, { query: `${query}&a=b&key=pixel` }), 422);
});

test("dead letters: listed, replayed, deleted, and what is wrong with a question about them", async () => {
  const list = operation("get", "/api/dead");
  const replay = operation("post", "/api/dead/replay");
  const purge = operation("delete", "/api/dead");
  const all = operations.filter(({ path }) => path.startsWith("/api/dead"));
  const { value } = list.described.responses[200].content["application/json"].examples.letters;
  const { rowLength: _, id: __, message: error, ...letter } = value.letters[0];
  mkdirSync(join(lettersDir, "dead"), { recursive: true });
  const line = JSON.stringify({ ...letter, error });
  writeFileSync(join(lettersDir, "dead", "flights.ndjson"), `${line}\n`);
  const listed = await (await fetch(`${well.url}/api/dead`)).json();
  assert.deepEqual(listed, value);
  assert.equal(await ask(list, well), 200);
  const done = await fetch(request(replay, well.url));
  const { dead, problems } = await done.clone().json() as { dead: number; problems: string[] };
  assert.deepEqual([dead, problems], [1, []]);
  met.add(await assertDescribed(replay, done));
  for (const one of all) {
    const elsewhere = { headers: { "Shishi-Folder": "0:0" }, query: "?table=flights" };
    assert.equal(await ask(one, well, elsewhere), 421);
    if (one !== replay) assert.equal(await ask(one, well, { query: "?limit=all&code=all" }), 400);
  }
  assert.equal(await ask(purge, well, { query: "?table=flights&damaged=true" }), 200);
  assert.deepEqual(await (await fetch(`${well.url}/api/dead`)).json(), { letters: [], total: 0 });
  assert.equal(await ask(replay, well, { body: '{"ids":5}' }), 400);
  assert.equal(await ask(replay, well, { body: new Uint8Array(70_000) }), 413);
  const headers = { "content-encoding": "lzma" };
  assert.equal(await ask(replay, well, { body: "x", headers }), 415);
  const order = operation("post", "/api/spool/set-aside");
  for (const body of ["", "5", '{"table":5,"batch":"x","maybeStored":1,"colour":"red"}']) {
    assert.equal(await ask(order, well, { body }), 400, body);
  }
  assert.equal(await ask(order, well, { body: new Uint8Array(70_000) }), 413);
  assert.equal(await ask(order, well, { body: "x", headers }), 415);
  const elsewhere = { body: '{"table":"flights"}', headers: { "Shishi-Folder": "0:0" } };
  assert.equal(await ask(order, well, elsewhere), 421);
  const { headers: ofAnother } = elsewhere;
  assert.equal(await ask(operation("get", "/api/status"), well, { headers: ofAnother }), 421);
});

test("a wrong question, the known document, a collector that is not ready", async () => {
  for (const one of operations.filter(isQuestion)) {
    assert.equal(await ask(one, well, { query: "?from=yesterday&colour=red" }), 400);
    assert.equal(await ask(one, alone, { headers: WITH_TOKEN }), 503);
  }
  for (const path of ["/", "/openapi.json", "/shishi.js"]) {
    const tag = (await fetch(well.url + path)).headers.get("etag") ?? "";
    const headers = { "if-none-match": tag };
    assert.equal(await ask(operation("get", path), well, { headers }), 304);
  }
  assert.equal(await ask(operation("get", "/readyz"), alone), 503);
});

test("full, then stopping", async () => {
  const [events, rows] = operations.filter(isWrite) as [Operation, Operation];
  const replay = operation("post", "/api/dead/replay");
  const init = { headers: WITH_TOKEN };
  assert.equal(await ask(events, alone, { ...init, body: GOOD["/events"]! }), 202);
  await holds({ ...alone, status: () => fetchStatus(alone) }, 1);
  assert.equal(await ask(events, alone, { ...init, body: GOOD["/events"]! }), 429);
  assert.equal(await ask(rows, alone, { ...init, body: GOOD["/events/{table}"]! }), 429);
  const pixel = operations.find(isPixel)!;
  const query = "?eventType=open";
  assert.equal(await ask(pixel, alone, { ...init, query }), 429);
  alone.signal("SIGTERM");
  for (let status = 0; status !== 503;) {
    status = await ask(events, alone, { ...init, body: GOOD["/events"]! });
  }
  assert.equal(await ask(rows, alone, { ...init, body: "{}" }), 503);
  assert.equal(await ask(pixel, alone, { ...init, query }), 503);
  assert.equal(await ask(replay, alone, { ...init, body: "" }), 503);
});

const fetchStatus = async (shishi: Shishi) =>
  await (await fetch(`${shishi.url}/api/status`, { headers: WITH_TOKEN })).json();

test("who is kept out: a page of another site, a client that asks too often; health and the script answer all", async () => {
  for (const one of operations) {
    const free = ["/healthz", "/readyz", "/shishi.js"].includes(one.path);
    const rateLimit = { count: 1, periodMs: 60_000 };
    const app = appOn(new Script(), { rateLimit, pixel: true });
    const foreign = { headers: { origin: "https://elsewhere.example" } };
    assert.equal(await askApp(one, app, foreign), free ? 200 : 403, one.path);
    await app.fetch(request(one, "http://localhost"), () => "127.0.0.1");
    assert.equal(await askApp(one, app), free ? 200 : 429, one.path);
  }
});

test("what takes long to bring about, by an app whose rooms behind it are made up", async () => {
  const script = new Script();
  const app = appOn(script);
  for (const one of operations.filter(isQuestion)) {
    for (const [kind, status] of [["busy", 429], ["slow", 504], ["large", 400]] as const) {
      script.asked = { kind, reason: "as it is" };
      assert.equal(await askApp(one, app), status);
    }
  }
  const replay = operation("post", "/api/dead/replay");
  assert.equal(await askApp(replay, app, { body: "" }), 503);
  script.replaying = script.purging = failed("a purge is under way");
  const query = "?all=true";
  assert.equal(await askApp(replay, app, { body: "" }), 409);
  assert.equal(await askApp(operation("delete", "/api/dead"), app, { query }), 409);
  const left = { stored: 1, dead: 0, left: 1, reasons: [], problems: ["it took long"] };
  script.replaying = done({ ...left, retryAfterS: 1 });
  assert.equal(await askApp(replay, app, { body: "" }), 202);
  const order = operation("post", "/api/spool/set-aside");
  const reasons = [{
    batch: "019b2a40-1f00-7000-8000-000000000000",
    rows: 3,
    why: "it is under way",
  }];
  const set = { batches: 1, letters: 4, stored: 1, left: 1, leftRows: 3, reasons, more: false };
  script.settingAside = done(set);
  assert.equal(await askApp(order, app, { body: '{"table":"flights","maybeStored":true}' }), 200);
  assert.deepEqual(script.orders, [{ table: "flights", batch: null, maybeStored: true }]);
  const failing = appOn(
    Object.assign(new Script(), { letters: { folder: () => assert.fail("EIO") } }),
  );
  for (const one of operations.filter(({ path }) => path.startsWith("/api/dead"))) {
    const headers = { "Shishi-Folder": "0:0" };
    if (one !== replay) {
      assert.equal(
        await askApp(one, failing, { query: one.method === "delete" ? query : "", headers }),
        503,
      );
    }
  }
  const { open: live } = createLive({ source: new ScriptedSource(), mostViewers: 0 });
  const watched = appOn(Object.assign(new Script(), { page: { ...script.page, live } }));
  assert.equal(await askApp(operation("get", "/api/live"), watched), 503);
  const cramped = Object.assign(new Script(), { room: 0 });
  const headers = { "content-length": "1" };
  for (const one of [replay, order]) {
    assert.equal(await askApp(one, appOn(cramped), { body: "x", headers }), 429);
  }
  const named = { body: '{"table":"flights"}', headers: { "Shishi-Folder": "0:0" } };
  assert.equal(await askApp(order, failing, named), 503);
  const { headers: ofFolder } = named;
  assert.equal(await askApp(operation("get", "/api/status"), failing, { headers: ofFolder }), 503);

  for (const one of operations.filter(({ method }) => method === "post")) {
    const body = new ReadableStream({ start: () => {} });
    let status = 0;
    void askApp(one, app, { body, duplex: "half" } as Init).then((met) => status = met);
    while (status === 0) await script.clock.advance(31_000);
    assert.equal(status, 408, one.path);
  }
});

test("every answer that is described was brought about", () => {
  assert.deepEqual(answers.filter((key) => !met.has(key)), []);
  assert.ok(openapi.openapi.startsWith("3.1"));
});
