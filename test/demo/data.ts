/**
 * Real input, from npm's vega-datasets: a week of earthquakes (USGS) and 20,000 flights, turned into what
 * the collector takes, and four years of Seattle's weather (NOAA), as the file is.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** An analytics event as `POST /events` takes it. */
export interface Event {
  readonly timestamp: number;
  readonly eventType: string;
  readonly userId: string;
  readonly properties: Readonly<Record<string, unknown>>;
}

/** A row of the table `flights`. */
export interface Flight {
  /** `2001-01-01 00:47:00`. */
  readonly date: string;
  readonly delay: number;
  readonly distance: number;
  readonly origin: string;
  readonly destination: string;
}

interface Feature {
  readonly id: string;
  readonly geometry: { readonly coordinates: readonly number[] };
  readonly properties:
    & { readonly time: number; readonly type: string; readonly net: string }
    & Readonly<Record<string, unknown>>;
}

const DATA = fileURLToPath(new URL("../../node_modules/vega-datasets/data/", import.meta.url));

/**
 * time → timestamp, type → eventType, network → userId, the rest → properties. What the file calls
 * null was not measured: it is left out, as an absent property.
 */
export function readEvents(): Event[] {
  const { features } = readJson<{ features: Feature[] }>("earthquakes.json");
  return features.map(({ id, geometry, properties: { time, type, net, ...rest } }) => ({
    timestamp: time,
    eventType: type,
    userId: net,
    properties: Object.fromEntries(
      Object.entries({ id, ...rest, coordinates: geometry.coordinates })
        .filter(([, value]) => value !== null),
    ),
  }));
}

/** The file writes `2001/01/01 00:47`; ClickHouse's plain form of a DateTime is taken by any version. */
export function readFlights(): Flight[] {
  return readJson<Flight[]>("flights-20k.json").map((flight) => ({
    ...flight,
    date: `${flight.date.replaceAll("/", "-")}:00`,
  }));
}

/** A day, each field as it stands in the file: `2012-01-01`, `0.0`, `12.8`, `5.0`, `4.7`, `drizzle`. */
export type Weather = readonly string[];

export interface WeatherFile {
  /** CSV with a header line. */
  readonly csv: string;
  readonly days: readonly Weather[];
}

/** No table is declared for it: the first post makes one. */
export function readWeather(): WeatherFile {
  const csv = readFileSync(join(DATA, "seattle-weather.csv"), "utf8");
  return { csv, days: csv.trimEnd().split(/\r?\n/).slice(1).map((line) => line.split(",")) };
}

export const CREATE_FLIGHTS = `CREATE TABLE flights (
  date DateTime,
  delay Int32,
  distance UInt32,
  origin LowCardinality(String),
  destination LowCardinality(String)
) ENGINE = MergeTree ORDER BY date`;

function readJson<T>(name: string): T {
  return JSON.parse(readFileSync(join(DATA, name), "utf8")) as T;
}
