/**
 * `npm run demo [-- --once]`: the whole way on real input. Starts a real ClickHouse and the
 * collector, feeds three datasets over HTTP, one of them into a table that nobody has declared, and compares what arrived with the files. Then it keeps
 * running to be tried with curl, until Ctrl-C; with `--once` it ends, with 0 only when every figure
 * agrees. Leaves nothing behind.
 */
import process from "node:process";
import { isFree } from "../kit/free_port.ts";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { type Shishi, startShishi } from "../kit/shishi.ts";
import { eventually } from "../kit/wait.ts";
import { CREATE_FLIGHTS, readEvents, readFlights, readWeather } from "./data.ts";
import { feed, posts } from "./feed.ts";
import { agree, figures, weatherFigures } from "./figures.ts";
import { paint, progress, say, step, table } from "./screen.ts";

const USUAL_PORT = 8080;
const CLIENTS = 8;
const ROWS_PER_POST = 250;
const ARRIVED_WITHIN_MS = 60_000;

/** @returns the exit code. */
async function demo(once: boolean, interrupted: Promise<"interrupted">): Promise<number> {
  const cleanUp: (() => Promise<void>)[] = [];
  try {
    const work = feedAndCompare((task) => cleanUp.unshift(task));
    const shown = await Promise.race([work, interrupted]);
    if (shown === "interrupted") return 130;
    if (!once) await keepRunning(shown, interrupted);
    return shown.good ? 0 : 1;
  } catch (problem) {
    say();
    say(`${paint("red", "✗")} ${(problem as Error).message}`);
    return 1;
  } finally {
    for (const task of cleanUp) await task();
  }
}

interface Shown {
  readonly good: boolean;
  readonly shishi: Shishi;
  readonly clickhouse: ClickHouse;
}

/** `later` takes what has to be done at the end, the latest first. */
async function feedAndCompare(later: (task: () => Promise<void>) => void): Promise<Shown> {
  const events = readEvents();
  const flights = readFlights();
  const weather = readWeather();
  say();
  say(`${paint("bold", "Shishi")}: earthquakes, flights and weather, over HTTP into ClickHouse`);
  say();

  const clickhouse = await startClickHouse();
  later(() => clickhouse.close());
  await clickhouse.query(CREATE_FLIGHTS);
  step("ClickHouse", `${await clickhouse.query("SELECT version()")} on ${clickhouse.url}`);

  const startOn = (port: number) =>
    startShishi({
      args: [
        "serve",
        ...["--listen", `127.0.0.1:${port}`],
        ...["--clickhouse-url", clickhouse.url],
        ...["--tables", "flights", "--create-tables", "weather"],
      ],
    });
  // Somebody may take the port between the look and the start.
  const shishi = await isFree(USUAL_PORT)
    ? await startOn(USUAL_PORT).catch(() => startOn(0))
    : await startOn(0);
  later(() => end(shishi));
  const elsewhere = shishi.url.endsWith(`:${USUAL_PORT}`) ? "" : ` (port ${USUAL_PORT} is taken)`;
  step("the collector", `shishi on ${shishi.url}${elsewhere}`);

  const days = weather.days.length;
  const total = events.length + flights.length + days;
  const sending = progress("sending", total);
  const began = performance.now();
  const secondsSince = () => ((performance.now() - began) / 1000).toFixed(1);
  const pile = [
    ...posts("/events", events, ROWS_PER_POST),
    ...posts("/events/flights", flights, ROWS_PER_POST),
    { path: "/events/weather", rows: days, body: weather.csv, type: "text/csv" },
  ];
  const fed = await feed(shishi.url, pile, { clients: CLIENTS, onRows: sending.at })
    .catch((problem: Error) => explain(problem, shishi));
  const retried = fed.retries === 0 ? "" : `, ${fed.retries} sent again after a 429 or 503`;
  sending.end(
    `${fed.acceptedRows.toLocaleString("en-US")} rows acknowledged after ${secondsSince()} s ` +
      `(${pile.length} posts from ${CLIENTS} clients${retried})`,
  );

  const arriving = progress("arriving in ClickHouse", total);
  await eventually(async () => {
    const held = await clickhouse.query(
      "SELECT (SELECT count() FROM analytics_events) + (SELECT count() FROM flights) + " +
        "(SELECT count() FROM weather)",
    );
    arriving.at(Number(held));
    if (Number(held) < total) throw new Error(`only ${held} of ${total} rows reached ClickHouse`);
  }, { withinMs: ARRIVED_WITHIN_MS }).catch((problem: Error) => explain(problem, shishi));
  arriving.end(`all there ${secondsSince()} s after the first post`);

  const sections = [
    ...await figures(clickhouse.query, events, flights),
    await weatherFigures(clickhouse.query, weather.days),
  ];
  const good = agree(sections);
  say(table(sections));
  say();
  say(good ? paint("green", "✓ every figure agrees") : paint("red", "✗ figures differ"));
  return { good, shishi, clickhouse };
}

async function keepRunning(
  { shishi, clickhouse }: Shown,
  interrupted: Promise<"interrupted">,
): Promise<void> {
  say(invitation(shishi.url, clickhouse.url));
  const stopTelling = tellTrouble(shishi);
  const why = await Promise.race([interrupted, shishi.exited]);
  stopTelling();
  if (why !== "interrupted") throw new Error(`the collector ended by itself:\n${tail(shishi)}`);
  say();
  say("ending …");
}

/** As an operator stops it, so that it drains; killed if that takes longer than it promises. */
async function end(shishi: Shishi): Promise<void> {
  shishi.signal("SIGTERM");
  const limit = setTimeout(() => void shishi.kill(), 15_000);
  await shishi.exited;
  clearTimeout(limit);
  await shishi.close();
}

function invitation(url: string, clickhouseUrl: string): string {
  const lines: [string, string][] = [
    ["an event", `curl -d '{"eventType":"click","userId":"u1"}' ${url}/events`],
    [
      "a row of a table",
      `curl -d '{"date":"2001-04-01 12:00:00","delay":5,"distance":337,` +
      `"origin":"LAX","destination":"SFO"}' ${url}/events/flights`,
    ],
    [
      "a row with a table of its own",
      `curl -d '{"date":"2016-01-01","weather":"sun"}' ${url}/events/weather`,
    ],
    [
      "a bad row costs one row",
      `curl -d '[{"eventType":"click"},{"eventType":5}]' ${url}/events`,
    ],
    [
      "what ClickHouse holds",
      `curl ${clickhouseUrl} -d 'SELECT event_type, count() FROM analytics_events GROUP BY 1'`,
    ],
    ["the books", `curl ${url}/api/status`],
    ["metrics", `curl ${url}/metrics`],
  ];
  return [
    "",
    paint("bold", "Try next, in another terminal"),
    ...lines.flatMap(([what, command]) => [paint("gray", `# ${what}`), command]),
    "",
    "Ctrl-C ends the collector and ClickHouse and deletes the data.",
  ].join("\n");
}

/** Shows warnings and errors of the collector from here on; the answer ends it. */
function tellTrouble(shishi: Shishi): () => void {
  let told = shishi.lines().length;
  const timer = setInterval(() => {
    const lines = shishi.lines();
    for (const { level, message, time: _time, ...fields } of lines.slice(told)) {
      if (level === "warn" || level === "error") {
        say(`${paint("yellow", `collector: ${message}`)} ${JSON.stringify(fields)}`);
      }
    }
    told = lines.length;
  }, 500);
  return () => clearInterval(timer);
}

function explain(problem: Error, shishi: Shishi): never {
  throw new Error(`${problem.message}\nthe collector's log ends with:\n${tail(shishi)}`);
}

function tail(shishi: Shishi): string {
  return shishi.stderr().trimEnd().split("\n").slice(-10).join("\n");
}

const unknown = process.argv.slice(2).filter((arg) => arg !== "--once");
if (unknown.length > 0) {
  say(`unknown: ${unknown.join(" ")}; the demo takes --once or nothing`);
  process.exit(2);
}
const interrupted = new Promise<"interrupted">((resolve) => {
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(name, () => resolve("interrupted"));
  }
});
process.exit(await demo(process.argv.includes("--once"), interrupted));
