/**
 * The same figures twice: what ClickHouse holds, and what the files say. From single sums down to a
 * checksum over every property of every row, so that "all agree" means all of it arrived, once.
 */
import { createHash } from "node:crypto";
import type { Event, Flight, Weather } from "./data.ts";

export interface Figure {
  readonly label: string;
  readonly clickhouse: string;
  readonly files: string;
}

export interface Section {
  readonly title: string;
  readonly figures: readonly Figure[];
}

/** Runs SQL, returns text; throws on errors. */
export type Query = (sql: string) => Promise<string>;

/** Whether both sides of every figure are the same. */
export function agree(sections: readonly Section[]): boolean {
  return sections.every(({ figures }) =>
    figures.length > 0 && figures.every(({ clickhouse, files }) => clickhouse === files)
  );
}

/** Asks ClickHouse and computes from the files. */
export async function figures(
  query: Query,
  events: readonly Event[],
  flights: readonly Flight[],
): Promise<Section[]> {
  return [
    { title: "Events by type", figures: await eventTypes(query, events) },
    { title: "Busiest routes", figures: await routes(query, flights) },
    { title: "Largest quakes", figures: await quakes(query, events) },
    { title: "Earthquakes in all", figures: await eventTotals(query, events) },
    { title: "Flights in all", figures: await flightTotals(query, flights) },
  ];
}

async function eventTypes(query: Query, events: readonly Event[]): Promise<Figure[]> {
  return pair(
    await rows(query, "SELECT event_type, count() FROM analytics_events GROUP BY 1"),
    tally(events.map(({ eventType }) => eventType)),
  );
}

async function routes(query: Query, flights: readonly Flight[]): Promise<Figure[]> {
  return pair(
    await rows(
      query,
      `SELECT concat(origin, ' → ', destination) AS route, count() AS n
       FROM flights GROUP BY route ORDER BY n DESC, route LIMIT 5`,
    ),
    tally(flights.map(({ origin, destination }) => `${origin} → ${destination}`)).slice(0, 5),
  );
}

async function quakes(query: Query, events: readonly Event[]): Promise<Figure[]> {
  const show = (mag: unknown, ms: unknown) => `M ${Number(mag).toFixed(1)}, ${time(ms)}`;
  const held = await rows(
    query,
    `SELECT properties['place'], properties['mag'], toUnixTimestamp64Milli(timestamp)
     FROM analytics_events WHERE event_type = 'earthquake'
     ORDER BY toFloat64OrZero(properties['mag']) DESC, timestamp LIMIT 5`,
  );
  const magnitude = ({ properties }: Event) => Number(properties.mag);
  const largest = events.filter(({ eventType }) => eventType === "earthquake")
    .toSorted((a, b) => magnitude(b) - magnitude(a) || a.timestamp - b.timestamp)
    .slice(0, 5);
  return pair(
    held.map(([place, mag, ms]) => [place, show(mag, ms)]),
    largest.map((event) => [event.properties.place, show(magnitude(event), event.timestamp)]),
  );
}

async function eventTotals(query: Query, events: readonly Event[]): Promise<Figure[]> {
  const [[count, ids, ownIds, first, last] = []] = await rows(
    query,
    `SELECT count(), uniqExact(id), uniqExact(properties['id']),
       toUnixTimestamp64Milli(min(timestamp)), toUnixTimestamp64Milli(max(timestamp))
     FROM analytics_events`,
  );
  const times = events.map(({ timestamp }) => timestamp);
  const held = await rows(
    query,
    `SELECT toUnixTimestamp64Milli(timestamp), event_type, user_id,
       mapKeys(properties), mapValues(properties) FROM analytics_events`,
  );
  const heldEvents = held.map(([ms, type, user, keys, values]) => [
    Number(ms),
    type,
    user,
    (keys as string[]).map((key, at) => [key, (values as string[])[at]]).sort(),
  ]);
  const fileEvents = events.map(({ timestamp, eventType, userId, properties }) => [
    timestamp,
    eventType,
    userId,
    Object.entries(properties).map(([key, value]) => [key, text(value)]).sort(),
  ]);
  const networks = (list: unknown[][]) => tally(list.map(([, type, user]) => `${type} ${user}`));
  return [
    figure("rows", count, events.length),
    figure("different ids", ids, events.length),
    figure("different USGS ids", ownIds, new Set(events.map((e) => e.properties.id)).size),
    figure("first", time(first), time(Math.min(...times))),
    figure("last", time(last), time(Math.max(...times))),
    figure("counts by type and network", sha(networks(heldEvents)), sha(networks(fileEvents))),
    figure("every property of every event", sha(heldEvents), sha(fileEvents)),
  ];
}

async function flightTotals(query: Query, flights: readonly Flight[]): Promise<Figure[]> {
  const [[count, delay, distance, first, last] = []] = await rows(
    query,
    `SELECT count(), sum(delay), sum(distance), toString(min(date)), toString(max(date))
     FROM flights`,
  );
  const held = await rows(
    query,
    "SELECT toString(date), delay, distance, origin, destination FROM flights",
  );
  const sum = (key: "delay" | "distance") => flights.reduce((total, row) => total + row[key], 0);
  const dates = flights.map(({ date }) => date).sort();
  return [
    figure("rows", count, flights.length),
    figure("sum of delays, minutes", delay, sum("delay")),
    figure("sum of distances, miles", distance, sum("distance")),
    figure("first", first, dates[0]),
    figure("last", last, dates.at(-1)),
    figure(
      "every column of every flight",
      sha(held),
      sha(flights.map((f) => [f.date, f.delay, f.distance, f.origin, f.destination])),
    ),
  ];
}

/** What became of the weather: the table that it made, and what is in it. */
export async function weatherFigures(query: Query, days: readonly Weather[]): Promise<Section> {
  const types = await rows(
    query,
    "SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = 'weather' ORDER BY position",
  );
  const held = await rows(
    query,
    "SELECT toString(date), precipitation, temp_max, temp_min, wind, weather FROM weather",
  );
  const fromFile = days.map(([date, ...rest]) => [
    date,
    ...rest.slice(0, 4).map(Number),
    rest[4],
  ]);
  const counts = (list: readonly unknown[][]) => tally(list.map((row) => String(row[5])));
  return {
    title: "Weather, a table made by its first post",
    figures: [
      ...pair(types, WEATHER_TYPES),
      ...pair(counts(held), counts(fromFile)),
      figure("days", held.length, days.length),
      figure("every column of every day", sha(held), sha(fromFile)),
    ],
  };
}

const WEATHER_TYPES = [
  ["date", "Date"],
  ...["precipitation", "temp_max", "temp_min", "wind"].map((name) => [name, "Nullable(Float64)"]),
  ["weather", "Nullable(String)"],
];

async function rows(query: Query, sql: string): Promise<unknown[][]> {
  const answer = await query(`${sql} FORMAT JSONCompactEachRow`);
  return answer === "" ? [] : answer.split("\n").map((line) => JSON.parse(line));
}

/** How often each name occurs, most frequent first. */
function tally(names: readonly string[]): [string, number][] {
  const counts = new Map<string, number>();
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
}

/** In the order of the files; a name that only one side has is a figure that does not agree. */
function pair(held: unknown[][], expected: unknown[][]): Figure[] {
  const left = new Map(held.map(([name, value]) => [name, value]));
  const figures = expected.map(([name, value]) => {
    const found = left.get(name);
    left.delete(name);
    return figure(String(name), found, value);
  });
  return [...figures, ...[...left].map(([name, value]) => figure(String(name), value, undefined))];
}

function figure(label: string, clickhouse: unknown, files: unknown): Figure {
  return { label, clickhouse: shown(clickhouse), files: shown(files) };
}

function shown(value: unknown): string {
  if (value === undefined) return "none";
  return /^-?\d+$/.test(String(value)) ? Number(value).toLocaleString("en-US") : String(value);
}

/** A property as ClickHouse's Map(String, String) holds it: text as it is, the rest as JSON. */
function text(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}

function time(ms: unknown): string {
  return new Date(Number(ms)).toISOString().slice(0, 19).replace("T", " ");
}

/** Of a list whose order does not matter. */
function sha(list: readonly unknown[]): string {
  const lines = list.map((item) => JSON.stringify(item)).sort();
  return `sha256 ${createHash("sha256").update(lines.join("\n")).digest("hex").slice(0, 12)}`;
}
