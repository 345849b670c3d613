/**
 * InfluxDB 1 as far as a mirror can see it, in memory: `/write`, `CREATE DATABASE`, and what a point
 * that is sent twice comes to. Its answers are those of the real one, byte for byte
 * (test/meter/fake_test.ts runs the same requests against both).
 */
import { Buffer } from "node:buffer";

/** A request as it came in; `path` with its query. */
export interface InfluxRequest {
  readonly method: string;
  readonly path: string;
  readonly body: string;
}

export interface InfluxAnswer {
  readonly status: number;
  readonly body: string;
}

/** Sums over time of the integer fields of one series. */
export interface SeriesSums {
  readonly tags: Readonly<Record<string, string>>;
  readonly sums: Readonly<Record<string, number>>;
}

export interface MemoryInflux {
  answer(request: InfluxRequest): InfluxAnswer;
  /** What `SELECT sum(…) GROUP BY *` would say. */
  series(database: string, measurement: string): SeriesSums[];
  /** Larger bodies are answered 413; 25 MB as the real one unless it is set. */
  maxBodyBytes: number;
}

/** `#` begins a comment; a time that is left out is the server's. */
const LINE =
  /^((?:\\.|[^\\, ])+)((?:,(?:\\.|[^\\,= ])+=(?:\\.|[^\\,= ])+)*) ((?:\\.|"[^"]*"|[^\\" ])+)(?: (-?\d+))?$/s;
const FIELD = /((?:\\.|[^\\,= ])+)=("[^"]*"|[^,]+)(?:,|$)/gs;

interface Line {
  readonly measurement: string;
  readonly tags: Record<string, string>;
  readonly fields: Record<string, string>;
  readonly time: string;
}

type Type = "integer" | "float" | "string";

interface Measurement {
  readonly types: Map<string, Type>;
  /** By tags as they were written, then by time. */
  readonly series: Map<string, { tags: Line["tags"]; points: Map<string, Line["fields"]> }>;
}

export function createMemoryInflux(): MemoryInflux {
  const databases = new Map<string, Map<string, Measurement>>();

  function write(database: string, body: string): InfluxAnswer {
    const measurements = databases.get(database);
    if (measurements === undefined) {
      return error(404, `database not found: ${JSON.stringify(database)}`);
    }
    const texts = body.split("\n").filter((text) => text !== "" && !text.startsWith("#"));
    const parsed = texts.map((text) => ({ text, line: parse(text) }));
    const good = parsed.flatMap(({ line }) => line === null ? [] : [line]);
    const conflicts = good.map((line) => put(measurements, line)).filter((why) => why !== null);
    const bad = parsed.find(({ line }) => line === null);
    if (bad !== undefined) {
      const why = `unable to parse '${bad.text}': ${complaint(bad.text)}`;
      return error(400, good.length === 0 ? why : `partial write: ${why} dropped=0`);
    }
    if (conflicts.length === 0) return { status: 204, body: "" };
    return error(400, `partial write: ${conflicts[0]} dropped=${conflicts.length}`);
  }

  const memory: MemoryInflux = {
    maxBodyBytes: 25_000_000,

    answer({ path, body }) {
      const url = new URL(path, "http://host");
      const database = url.searchParams.get("db") ?? "";
      if (url.pathname === "/write") {
        if (database === "") return error(400, "database is required");
        if (Buffer.byteLength(body) > memory.maxBodyBytes) {
          return error(413, "Request Entity Too Large");
        }
        return write(database, body);
      }
      const created = /^create database "(.+)"$/i.exec(url.searchParams.get("q") ?? "");
      if (url.pathname !== "/query" || created === null) {
        return { status: 404, body: "404 page not found\n" };
      }
      const name = created[1]!.replace(/\\(.)/g, "$1");
      if (!databases.has(name)) databases.set(name, new Map());
      return { status: 200, body: '{"results":[{"statement_id":0}]}\n' };
    },

    series(database, measurement) {
      const found = databases.get(database)?.get(measurement)?.series.values() ?? [];
      return [...found].map(({ tags, points }) => {
        const sums: Record<string, number> = {};
        for (const fields of points.values()) {
          for (const [name, value] of Object.entries(fields)) {
            if (value.endsWith("i")) sums[name] = (sums[name] ?? 0) + Number(value.slice(0, -1));
          }
        }
        return { tags, sums };
      });
    },
  };
  return memory;
}

function error(status: number, message: string): InfluxAnswer {
  return { status, body: `${JSON.stringify({ error: message })}\n` };
}

/** Stores a point over one of the same time; says why it does not. */
function put(measurements: Map<string, Measurement>, line: Line): string | null {
  const known = measurements.get(line.measurement) ?? { types: new Map(), series: new Map() };
  measurements.set(line.measurement, known);
  for (const [name, value] of Object.entries(line.fields)) {
    const type = typeOf(value);
    const wanted = known.types.get(name) ?? type;
    if (type !== wanted) {
      return `field type conflict: input field "${name}" on measurement ` +
        `"${line.measurement}" is type ${type}, already exists as type ${wanted}`;
    }
  }
  for (const [name, value] of Object.entries(line.fields)) known.types.set(name, typeOf(value));
  const key = JSON.stringify(Object.entries(line.tags).sort());
  const series = known.series.get(key) ?? { tags: line.tags, points: new Map() };
  known.series.set(key, series);
  series.points.set(line.time, { ...series.points.get(line.time), ...line.fields });
  return null;
}

function parse(text: string): Line | null {
  const [, measurement = "", tags = "", fields = "", time] = LINE.exec(text) ?? [];
  const pairs = [...fields.matchAll(FIELD)].map(([, name = "", value = ""]) => [name, value]);
  if (pairs.length === 0 || pairs.some(([, value]) => !/^(-?\d+i|-?[\d.]+|".*")$/s.test(value!))) {
    return null;
  }
  return {
    measurement: plain(measurement),
    tags: Object.fromEntries(
      [...tags.matchAll(/,((?:\\.|[^\\,= ])+)=((?:\\.|[^\\,= ])+)/gs)]
        .map(([, name = "", value = ""]) => [plain(name), plain(value)]),
    ),
    fields: Object.fromEntries(pairs) as Record<string, string>,
    time: time ?? `${Date.now()}000000`,
  };
}

/** A backslash is one, unless something stands behind it that needs it. */
function plain(text: string): string {
  return text.replace(/\\([,= ])/g, "$1");
}

function typeOf(value: string): Type {
  return value.startsWith('"') ? "string" : value.endsWith("i") ? "integer" : "float";
}

function complaint(text: string): string {
  if (/,[^= ]+=[, ]/.test(text)) return "missing tag value";
  return text.includes(" ") ? "bad timestamp" : "missing fields";
}
