/** The page of a real collector: over HTTP, with and without tokens, at a stop. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { type Shishi, startShishi } from "../kit/shishi.ts";
import { eventually } from "../kit/wait.ts";
import { startReloading } from "../system/reloading.ts";
import { eventsOf, type Told } from "./kit.ts";

const WITHIN = { withinMs: 20_000 };

let clickhouse: ClickHouse;
before(async () => {
  clickhouse = await startClickHouse();
});
after(() => clickhouse.close());

const start = (...args: string[]) =>
  startShishi({ args: ["--clickhouse-url", clickhouse.url, ...args] });

async function open(shishi: Shishi, headers: Record<string, string> = {}) {
  const answer = await fetch(`${shishi.url}/api/live`, { headers });
  assert.equal(answer.status, 200);
  return eventsOf(answer);
}

/** Reads on until `wanted`; fails when the stream ends before. */
async function until(
  events: ReturnType<typeof eventsOf>,
  wanted: (told: Told) => boolean,
): Promise<Told> {
  while (true) {
    const told = await events.next();
    assert.ok(told !== null, "the stream has ended");
    if (wanted(told)) return told;
  }
}

test("figures follow the events, the past stays for who comes later, and a stop is not held up", async () => {
  const shishi = await start("--flush-interval", "100ms");
  try {
    const page = await shishi.get("/");
    assert.equal(page.status, 200);
    assert.match(page.headers.get("content-type") ?? "", /^text\/html/);
    const events = await open(shishi);
    await until(events, ({ name }) => name === "past");
    await shishi.post([{ eventType: "click" }, { eventType: "click" }, { eventType: "buy" }]);
    const { data } = await until(
      events,
      ({ name, data }) => name === "now" && data.books.stored === 3,
    );
    assert.equal(data.difference, 0);
    assert.deepEqual(data.types.first.map((one: { eventType: string }) => one.eventType), [
      "click",
      "buy",
    ]);
    assert.equal(data.tables.first[0].stored, 3);
    assert.ok(data.sample[1] > 0 && data.sample[2] > 0, "rates of this moment");

    const later = await open(shishi);
    const past = await until(later, ({ name }) => name === "past");
    const [times, received] = past.data.columns;
    assert.ok(times.length >= 2, "the past has begun before the second viewer came");
    assert.ok(received.some((rate: number) => rate > 0), "the events are in it");

    // Else a stop would wait for answers that never end, and cut them off.
    shishi.signal("SIGTERM");
    await until(events, ({ name }) => name === "end");
    assert.equal(await events.next(), null);
    const { code } = await shishi.exited;
    assert.equal(code, 0, shishi.stderr());
  } finally {
    await shishi.close();
  }
});

test("with tokens the page itself is open, and its figures are not", async () => {
  const shishi = await start("--auth-tokens", "bamboo,stone");
  try {
    assert.equal((await shishi.get("/")).status, 200);
    assert.equal((await shishi.get("/api/live")).status, 401);
    assert.equal((await shishi.get("/api/live", { authorization: "Bearer moss" })).status, 401);
    const events = await open(shishi, { authorization: "Bearer stone" });
    assert.equal((await events.next())?.name, "about");
    await events.close();
  } finally {
    await shishi.close();
  }
});

test("other settings: viewers come again, are told of them, and let in as these say", async () => {
  const at = await startReloading(() => ({ "clickhouse-url": clickhouse.url }));
  const { shishi } = at;
  try {
    const bamboo = { authorization: "Bearer bamboo" };
    await at.set({ "auth-tokens": ["bamboo"] });
    const events = await open(shishi, bamboo);
    const about = await until(events, ({ name }) => name === "about");
    assert.equal(about.data.backlog, 1_000_000);
    await at.set({ "auth-tokens": ["bamboo"], backlog: 50 });
    while (await events.next() !== null);
    const again = await open(shishi, bamboo);
    assert.equal((await until(again, ({ name }) => name === "about")).data.backlog, 50);
    await at.set({ "auth-tokens": ["stone"] });
    while (await again.next() !== null);
    assert.equal((await shishi.get("/api/live", bamboo)).status, 401);
  } finally {
    await at.close();
  }
});

test("a page is GET: another method is told so", async () => {
  const shishi = await start();
  try {
    for (const path of ["/", "/api/live"]) {
      const answer = await shishi.post({}, { path });
      assert.equal(answer.status, 405, path);
      assert.match(answer.json.error, new RegExp(`^${path} takes GET, HEAD, not POST$`));
    }
  } finally {
    await shishi.close();
  }
});

test("whoever comes anew is told all, problems too; a stop ends what is told", async () => {
  await clickhouse.query("CREATE TABLE narrow (n UInt8) ENGINE = MergeTree ORDER BY n");
  const shishi = await start(
    ...["--flush-interval", "100ms", "--tables", "narrow"],
    // What the door finds by itself is no problem of the collector.
    "--type-check=off",
  );
  try {
    await Promise.all(
      Array.from(
        { length: 20 },
        () => shishi.post({ eventType: "click" }, { headers: { connection: "close" } }),
      ),
    );
    await shishi.post('{"n":"many"}', { path: "/events/narrow" });
    for (let viewer = 0; viewer < 4; viewer++) {
      const events = await open(shishi, { connection: "close" });
      const first = await until(
        events,
        ({ name, data }) => name === "now" && data.books.received === 21,
      );
      assert.equal(first.data.difference, 0);
      await until(events, ({ name, data }) => name === "problems" && /narrow/.test(data[0]?.text));
      await events.close();
    }
    const last = await open(shishi);
    await until(last, ({ name, data }) => name === "now" && data.books.stored === 20);
    shishi.signal("SIGTERM");
    await eventually(async () => assert.equal(await last.next(), null), WITHIN);
    assert.equal((await shishi.exited).code, 0, shishi.stderr());
  } finally {
    await shishi.close();
  }
});
