/**
 * What goes in and out, as JSON Schema. The schema of an event is made of the very rules that events
 * are checked by; those of the answers name every key, so that a test can hold answers to them.
 */

import { type EventField, FIELDS, UUID } from "../event_rules.ts";
import { LETTERS } from "../reads.ts";
import { EARLIEST_MS, LATEST_MS, TIMESTAMP_WANTED } from "../timestamp.ts";
import { type Piece, ref } from "./parts.ts";

const COUNT: Piece = { type: "integer", minimum: 0 };
const TEXT: Piece = { type: "string" };
const SECONDS: Piece = { type: "number", minimum: 0 };
const MOMENT: Piece = { type: "string", format: "date-time" };
const BYTES = COUNT;

/** An object with these keys, all of them there but for `optional`, and no other. */
function object(properties: Piece, optional: readonly string[] = []): Piece {
  const required = Object.keys(properties).filter((name) => !optional.includes(name));
  return { type: "object", required, additionalProperties: false, properties };
}

const list = (items: Piece): Piece => ({ type: "array", items });

/** Years that DateTime64 holds, with the days that they have. */
const DATE = "(?:(?:19|2[0-2])\\d\\d-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|" +
  "(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)|02-(?:0[1-9]|1\\d|2[0-8]))|" +
  "(?:(?:19|2[0-2])(?:0[48]|[2468][048]|[13579][26])|2000)-02-29)";
const TIME = "[T ](?:[01]\\d|2[0-3]):[0-5]\\d(?::[0-5]\\d(?:\\.\\d+)?)?";
const ZONE = "(?:Z|[+\\-](?:0\\d|1[0-4])(?::?[0-5]\\d)?)?";

/** A time as it is taken, but for the hours by which a zone moves the first and the last day. */
export const TIMESTAMP: Piece = {
  description: `${TIMESTAMP_WANTED}; UTC where no zone is given`,
  oneOf: [
    { type: "string", pattern: `^${DATE}(?:${TIME}${ZONE})?$` },
    { type: "integer", minimum: EARLIEST_MS, maximum: LATEST_MS },
  ],
};

const EVENT_ID: Piece = {
  type: "string",
  description: "A UUID.",
  pattern: UUID.source.replaceAll("a-f", "a-fA-F"),
};

const EVENT_FIELDS: Readonly<Record<EventField, Piece>> = {
  eventType: { type: "string", minLength: 1 },
  userId: { type: "string", default: "" },
  timestamp: TIMESTAMP,
  id: { ...EVENT_ID, description: "A UUID; a new one unless given." },
  properties: {
    type: "object",
    default: {},
    description:
      "Values become strings: numbers, booleans and nested values as their JSON with every digit " +
      "kept, null as the empty string.",
  },
};

const EVENT = object(EVENT_FIELDS, FIELDS.filter((field) => field !== "eventType"));

const STORED_EVENT = object({
  id: EVENT_ID,
  timestamp: MOMENT,
  eventType: TEXT,
  userId: TEXT,
  properties: { type: "object", additionalProperties: TEXT },
});

const ROW_ERROR = object({
  index: { ...COUNT, description: "The row's place in the request, from 0." },
  error: TEXT,
});

const LEDGER_NUMBERS = {
  received: COUNT,
  recovered: COUNT,
  rejected: COUNT,
  stored: COUNT,
  dead: COUNT,
  held: COUNT,
  lost: COUNT,
};

export const PERIOD = object({
  from: { type: ["string", "null"], format: "date-time" },
  to: { type: ["string", "null"], format: "date-time" },
});

export const SCHEMAS: Readonly<Record<string, Piece>> = {
  Event: EVENT,
  Row: {
    type: "object",
    description: "The keys are columns of the table; whether a value fits is ClickHouse's to say.",
  },
  Taken: object({
    accepted: { type: "integer", minimum: 1 },
    rejected: COUNT,
    ack: {
      type: "string",
      enum: ["memory", "disk", "clickhouse"],
      description: "How far the rows have got: in memory, synced to disk, inserted.",
    },
    dead: { type: "integer", minimum: 1, description: "Rows that ClickHouse refused for good." },
    errors: { ...list(ref("RowError")), maxItems: 100 },
  }, ["dead"]),
  NoneTaken: object({
    accepted: { const: 0 },
    rejected: { type: "integer", minimum: 1 },
    errors: { ...list(ref("RowError")), maxItems: 100 },
  }),
  RowError: ROW_ERROR,
  Error: object({ error: TEXT }),
  Alive: object({ alive: { const: true } }),
  Readiness: object({ ready: { type: "boolean" }, reasons: list(TEXT) }),
  Ledger: {
    ...object(LEDGER_NUMBERS),
    description: "received + recovered = rejected + stored + dead + held + lost",
  },
  Status: object({
    group: TEXT,
    id: TEXT,
    state: { type: "string", enum: ["running", "paused", "draining", "degraded", "stopped"] },
    version: TEXT,
    runtime: TEXT,
    uptime_s: COUNT,
    ledger: ref("Ledger"),
    oldest_s: { ...SECONDS, description: "Age of the oldest row that is not delivered." },
    memory_bytes: BYTES,
    spool_bytes: BYTES,
    recovering: { type: "boolean" },
    tables: { type: "object", additionalProperties: ref("TableStatus") },
  }),
  TableStatus: object({
    ...LEDGER_NUMBERS,
    state: { type: "string", enum: ["ok", "trouble"] },
    trouble: TEXT,
  }, ["trouble"]),
  Metrics: object({
    counts: {
      type: "object",
      additionalProperties: COUNT,
      description: "Events by type; the 1000 most frequent types.",
    },
    users: { ...COUNT, description: "Different users, those without a name left out." },
    others: { ...COUNT, description: "Events of further types, where there are more." },
    period: PERIOD,
  }, ["others"]),
  Events: object({ events: list(ref("StoredEvent")), period: PERIOD }),
  StoredEvent: STORED_EVENT,
  DeadLetters: object({
    letters: list(ref("DeadLetter")),
    total: { ...COUNT, description: "All that there are, of the table that was asked for." },
  }),
  DeadLetter: object({
    table: TEXT,
    id: TEXT,
    time: MOMENT,
    code: { type: "integer", description: "ClickHouse's exception code." },
    message: TEXT,
    row: { ...TEXT, description: "The row as it was sent; the beginning of a long one." },
    rowLength: { ...COUNT, description: "Characters of the whole row." },
    shape: { type: "string", enum: ["event", "row"] },
    batch: { ...TEXT, description: "The batch that brought it." },
    index: { ...COUNT, description: "Its place in that batch, from 0." },
  }),
  ReplayWanted: object({
    table: { type: "string", description: "Only letters of this table." },
    ids: {
      ...list(TEXT),
      minItems: 1,
      maxItems: LETTERS.most,
      description: "Only these letters.",
    },
  }, ["table", "ids"]),
  Replayed: object({
    stored: { ...COUNT, description: "Rows that are in ClickHouse." },
    dead: { ...COUNT, description: "Rows that are letters still, or again." },
    left: {
      ...COUNT,
      description: "Letters that were not sent, or whose rows are on their way: replay again.",
    },
    reasons: list(object({ reason: TEXT, letters: { type: "integer", minimum: 1 } })),
    problems: { ...list(TEXT), description: "Why letters are left." },
  }),
};
