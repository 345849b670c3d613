/**
 * The demo: it ends well, it stops cleanly, and it would notice a row that is missing or changed.
 * Runs once: `npm run demo` has one runtime, whichever tests it.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { createServer } from "node:http";
import process from "node:process";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { startGuard } from "../servers/process.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import {
  CREATE_FLIGHTS,
  type Event,
  type Flight,
  readEvents,
  readFlights,
  readWeather,
} from "./data.ts";
import { feed, posts } from "./feed.ts";
import { agree, figures, weatherFigures } from "./figures.ts";
import { table } from "./screen.ts";

const events: Event[] = readEvents().slice(0, 40);
const flights: Flight[] = readFlights().slice(0, 60);
let clickhouse: ClickHouse;

before(async () => {
  clickhouse = await startClickHouse();
});
after(() => clickhouse.close());

/** Both tables with exactly these rows, not by way of the collector. */
async function hold(heldEvents: readonly Event[], heldFlights: readonly Flight[]): Promise<void> {
  await clickhouse.query("DROP TABLE IF EXISTS flights");
  await clickhouse.query("DROP TABLE IF EXISTS analytics_events");
  await clickhouse.query(CREATE_FLIGHTS);
  await clickhouse.query(`CREATE TABLE analytics_events (
    id UUID DEFAULT generateUUIDv4(), timestamp DateTime64(3, 'UTC'),
    event_type LowCardinality(String), user_id String,
    properties Map(LowCardinality(String), String)) ENGINE = MergeTree ORDER BY timestamp`);
  const lines = (rows: readonly unknown[]) => rows.map((row) => JSON.stringify(row)).join("\n");
  const asText = (value: unknown) => typeof value === "string" ? value : JSON.stringify(value);
  await clickhouse.query(`INSERT INTO flights FORMAT JSONEachRow\n${lines(heldFlights)}`);
  await clickhouse.query(
    "INSERT INTO analytics_events (timestamp, event_type, user_id, properties) " +
      `FORMAT JSONEachRow\n${
        lines(heldEvents.map((event) => ({
          timestamp: new Date(event.timestamp).toISOString().slice(0, -1).replace("T", " "),
          event_type: event.eventType,
          user_id: event.userId,
          properties: Object.fromEntries(
            Object.entries(event.properties).map(([key, value]) => [key, asText(value)]),
          ),
        })))
      }`,
  );
}

test("the files hold what the demo says they hold", () => {
  const all = readEvents();
  assert.equal(all.length, 1707);
  assert.equal(new Set(all.map(({ properties }) => properties.id)).size, 1707);
  assert.equal(readFlights().length, 20_000);
  assert.equal(readFlights()[0]!.date, "2001-01-01 00:47:00");
});

const [event, flight] = [events[0]!, flights[0]!];
const differences: [name: string, events: Event[], flights: Flight[], agrees: boolean][] = [
  ["the very rows", events, flights, true],
  ["the very rows in another order", events.toReversed(), flights.toReversed(), true],
  ["one event missing", events.slice(1), flights, false],
  ["one event twice", [...events, event], flights, false],
  ["one event in place of another", [events[1]!, ...events.slice(1)], flights, false],
  [
    "a timestamp 1 ms off",
    [
      { ...event, timestamp: event.timestamp + 1 },
      ...events.slice(1),
    ],
    flights,
    false,
  ],
  ["another network", [{ ...event, userId: "xx" }, ...events.slice(1)], flights, false],
  [
    "a property lost a digit",
    [
      { ...event, properties: { ...event.properties, dmin: 0.0421 } },
      ...events.slice(1),
    ],
    flights,
    false,
  ],
  ["one flight twice", events, [...flights, flight], false],
  ["two delays swapped", events, [
    { ...flight, delay: flights[1]!.delay },
    { ...flights[1]!, delay: flight.delay },
    ...flights.slice(2),
  ], false],
  ["nothing", [], [], false],
];
for (const [name, heldEvents, heldFlights, agrees] of differences) {
  test(`${agrees ? "agrees" : "does not agree"} when ClickHouse holds ${name}`, async () => {
    await hold(heldEvents, heldFlights);
    const sections = await figures(clickhouse.query, events, flights);
    assert.equal(agree(sections), agrees);
    assert.equal(table(sections).includes("✗"), !agrees);
  });
}

for (
  const [name, change, agrees] of [
    ["the very days", (days: string[][]) => days, true],
    ["one day missing", (days: string[][]) => days.slice(1), false],
    [
      "a hundredth of a degree off",
      (days: string[][]) => days.map((day, at) => at > 0 ? day : day.with(2, `${day[2]}1`)),
      false,
    ],
  ] as const
) {
  test(`weather ${agrees ? "agrees" : "does not agree"} when ClickHouse holds ${name}`, async () => {
    const { days } = readWeather();
    await clickhouse.query("DROP TABLE IF EXISTS weather");
    await clickhouse.query(
      "CREATE TABLE weather (date Date, precipitation Nullable(Float64), temp_max Nullable(Float64), " +
        "temp_min Nullable(Float64), wind Nullable(Float64), weather Nullable(String)) " +
        "ENGINE = MergeTree ORDER BY date",
    );
    const held = change(days.map((day) => [...day]));
    await clickhouse.query(
      `INSERT INTO weather FORMAT CSV\n${held.map((day) => day.join(",")).join("\n")}`,
    );
    assert.equal(agree([await weatherFigures(clickhouse.query, days)]), agrees);
  });
}

test("a post that is refused with 429 or 503 is sent again, each row arrives once", async () => {
  const taken: string[] = [];
  let requests = 0;
  const web = createServer((request, response) => {
    let body = "";
    request.setEncoding("utf8").on("data", (text: string) => body += text).on("end", () => {
      requests++;
      if (requests % 3 !== 0) {
        response.writeHead(requests % 3 === 1 ? 429 : 503, { "retry-after": "0" }).end("{}");
        return;
      }
      const rows = body.trimEnd().split("\n");
      taken.push(...rows);
      response.writeHead(202).end(JSON.stringify({ accepted: rows.length, rejected: 0 }));
    });
  });
  await new Promise<void>((resolve) => web.listen(0, "127.0.0.1", resolve));
  const { port } = web.address() as { port: number };
  const rows = Array.from({ length: 25 }, (_, n) => ({ n }));
  const fed = await feed(`http://127.0.0.1:${port}`, posts("/events", rows, 10), {
    clients: 1,
    onRows: () => {},
  });
  web.closeAllConnections();
  await new Promise((resolve) => web.close(resolve));
  assert.deepEqual(fed, { acceptedRows: 25, retries: 6 });
  assert.deepEqual(taken.map((line) => JSON.parse(line)), rows);
});

/** Starts `npm run demo`'s program; `text` grows with its output. */
function startDemo(args: string[]) {
  const bun = fileURLToPath(new URL("../../node_modules/.bin/bun", import.meta.url));
  const main = fileURLToPath(new URL("./main.ts", import.meta.url));
  const child: ChildProcess = spawn(bun, [main, ...args], { stdio: ["ignore", "pipe", "pipe"] });
  const dir = tempDir("demo");
  const guard = startGuard(child.pid!, dir);
  const demo = {
    text: "",
    child,
    waitFor: (pattern: RegExp) =>
      new Promise<RegExpExecArray>((resolve, reject) => {
        const look = () => {
          const found = pattern.exec(demo.text);
          if (found) resolve(found);
        };
        child.stdout!.on("data", look);
        child.once("close", () => reject(new Error(`it ended:\n${demo.text}`)));
        look();
      }),
    ended: new Promise<number | null>((resolve) => {
      child.once("close", async (code) => {
        await guard.end();
        removeDir(dir);
        resolve(code);
      });
    }),
  };
  child.stdout!.setEncoding("utf8").on("data", (text: string) => demo.text += text);
  child.stderr!.setEncoding("utf8").on("data", (text: string) => demo.text += text);
  return demo;
}

test("--once ends with 0 and every figure agrees", async () => {
  const demo = startDemo(["--once"]);
  assert.equal(await demo.ended, 0, demo.text);
  assert.match(demo.text, /23,168 rows acknowledged/);
  assert.match(demo.text, /^LAX → PHX +59 +59 +✓$/m);
  assert.match(demo.text, /^temp_max +Nullable\(Float64\) +Nullable\(Float64\) +✓$/m);
  assert.match(demo.text, /✓ every figure agrees/);
  assert.doesNotMatch(demo.text, /✗/);
});

test("it keeps running until SIGINT, takes what curl sends, and ends with 0", async () => {
  const demo = startDemo([]);
  const [, url] = await demo.waitFor(/shishi on (http:\S+)/);
  await demo.waitFor(/Ctrl-C ends/);
  const [, clickhouseUrl] = await demo.waitFor(/curl (http:\S+) -d 'SELECT/);
  const answer = await fetch(`${url}/events`, { method: "POST", body: '{"eventType":"click"}' });
  assert.equal(answer.status, 202, await answer.text());
  // Not child.kill(): after that one Deno tells the signal as the end, whatever the process did.
  process.kill(demo.child.pid!, "SIGINT");
  assert.equal(await demo.ended, 0, demo.text);
  for (const gone of [url, clickhouseUrl]) await assert.rejects(fetch(`${gone}/`));
});

test("a word that it does not know is an error", async () => {
  const demo = startDemo(["--twice"]);
  assert.equal(await demo.ended, 2);
  assert.match(demo.text, /--twice/);
});
