/** The description of the routes that tell something of the collector, and of this document. */

import {
  answer,
  ETAG,
  type Piece,
  readMethods,
  ref,
  refusal,
  RETRY_AFTER,
  UNAUTHORIZED,
  values,
} from "./parts.ts";

const NO_TOKEN: Piece = { security: [] };

const LEDGER = {
  received: 5012,
  recovered: 0,
  rejected: 2,
  stored: 4998,
  dead: 0,
  held: 12,
  lost: 0,
};

const STATUS = {
  group: "eu",
  id: "edge-1",
  state: "degraded",
  version: "0.1.0",
  runtime: "bun 1.4.5",
  uptime_s: 3600,
  ledger: LEDGER,
  oldest_s: 4.2,
  memory_bytes: 2040,
  spool_bytes: 2196,
  recovering: false,
  tables: {
    analytics_events: { ...LEDGER, state: "trouble", trouble: "ClickHouse is read-only" },
  },
};

export const ABOUT: Readonly<Record<string, Piece>> = {
  "/healthz": {
    get: {
      operationId: "getHealth",
      tags: ["watching"],
      summary: "Is the process there?",
      ...NO_TOKEN,
      responses: {
        "200": answer("While it serves.", ref("Alive"), { alive: { alive: true } }),
        "405": readMethods("/healthz"),
      },
    },
  },
  "/readyz": {
    get: {
      operationId: "getReadiness",
      tags: ["watching"],
      summary: "Do rows flow?",
      ...NO_TOKEN,
      responses: {
        "200": answer("They do.", ref("Readiness"), { ready: { ready: true, reasons: [] } }),
        "405": readMethods("/readyz"),
        "503": answer("They do not, for these reasons.", ref("Readiness"), {
          away: { ready: false, reasons: ["clickhouse: connection refused"] },
        }),
      },
    },
  },
  "/metrics": {
    get: {
      operationId: "getPrometheusMetrics",
      tags: ["watching"],
      summary: "The counts for Prometheus.",
      responses: {
        "200": {
          description: "Text format 0.0.4.",
          content: {
            "text/plain": {
              schema: { type: "string" },
              examples: values({ text: 'shishi_rows_received_total{table="flights"} 5012\n' }),
            },
          },
        },
        "401": UNAUTHORIZED,
        "405": readMethods("/metrics"),
      },
    },
  },
  "/api/status": {
    get: {
      operationId: "getStatus",
      tags: ["watching"],
      summary: "State, the books, what is held, by table.",
      responses: {
        "200": answer("As it is at this moment.", ref("Status"), { degraded: STATUS }),
        "401": UNAUTHORIZED,
        "405": readMethods("/api/status"),
      },
    },
  },
  "/openapi.json": {
    get: {
      operationId: "getDescription",
      tags: ["watching"],
      summary: "This document.",
      parameters: [{
        name: "If-None-Match",
        in: "header",
        description: "The `ETag` of the one that is known.",
        schema: { type: "string" },
      }],
      responses: {
        "200": {
          ...answer("OpenAPI 3.1.", { type: "object" }, {
            beginning: { openapi: "3.1.0" },
          }, ETAG),
        },
        "304": { description: "It is the known one.", headers: ETAG },
        "401": UNAUTHORIZED,
        "405": readMethods("/openapi.json"),
      },
    },
  },
};

const moment = (name: string, description: string, example: string): Piece => ({
  name,
  in: "query",
  description,
  schema: { type: "string" },
  example,
});

const PERIOD: readonly Piece[] = [
  {
    name: "eventType",
    in: "query",
    description: "Only events of this type.",
    schema: { type: "string", minLength: 1 },
    example: "click",
  },
  moment(
    "from",
    "Events from then on, as the timestamp of an event; a day before `to` unless given.",
    "2026-01-31T00:00:00Z",
  ),
  moment("to", "Events before then; now unless given.", "1769947200000"),
];

export const whole = (
  name: string,
  description: string,
  { usual, most }: { readonly usual: number; readonly most: number },
): Piece => ({
  name,
  in: "query",
  description,
  schema: { type: "integer", minimum: 1, maximum: most, default: usual },
  example: usual,
});

const FROM_CLICKHOUSE: Piece = {
  "400": refusal(
    "A parameter is wrong, or the answer would be too large: every problem at once.",
    "from: expected ISO 8601 or epoch milliseconds between 1900-01-01 and 2299-12-31, got " +
      "yesterday; colour: unknown parameter; there are eventType, from, to",
  ),
  "401": UNAUTHORIZED,
  "429": refusal(
    "Too many questions at once.",
    "4 questions are being answered, more are not taken at a time",
    RETRY_AFTER,
  ),
  "503": refusal(
    "ClickHouse is away, or cannot answer.",
    "clickhouse: connection refused",
    RETRY_AFTER,
  ),
  "504": refusal(
    "ClickHouse took too long, or too much memory.",
    "ClickHouse could not answer with 10 s and 1024 MiB of memory; a shorter period (from, to) " +
      "costs less",
  ),
};

const DAY = { from: "2026-01-31T00:00:00.000Z", to: "2026-02-01T12:00:00.000Z" };

export function questions(
  events: { readonly usual: number; readonly most: number },
): Readonly<Record<string, Piece>> {
  return {
    "/api/metrics": {
      get: {
        operationId: "countEvents",
        tags: ["stored events"],
        summary: "How many events of which type, and of how many users.",
        parameters: PERIOD,
        responses: {
          "200": answer("Read from ClickHouse.", ref("Metrics"), {
            counts: { counts: { click: 2 }, users: 1, period: DAY },
          }),
          ...FROM_CLICKHOUSE,
          "405": readMethods("/api/metrics"),
        },
      },
    },
    "/api/events": {
      get: {
        operationId: "listEvents",
        tags: ["stored events"],
        summary: "Events, the newest first.",
        parameters: [
          ...PERIOD,
          {
            name: "id",
            in: "query",
            description: "Only this event; then `from` and `to` bound nothing unless given.",
            schema: { type: "string", format: "uuid" },
            example: "01890a5d-ac96-774b-bcce-b302099a8057",
          },
          whole("limit", "So many at most.", events),
        ],
        responses: {
          "200": answer("Read from ClickHouse.", ref("Events"), {
            events: {
              events: [{
                id: "01890a5d-ac96-774b-bcce-b302099a8057",
                timestamp: "2026-01-31T12:00:00.000Z",
                eventType: "click",
                userId: "u1",
                properties: { price: "9.90" },
              }],
              period: DAY,
            },
          }),
          ...FROM_CLICKHOUSE,
          "405": readMethods("/api/events"),
        },
      },
    },
  };
}
