/** The description of the routes that tell something of the collector, and of this document. */

import { answer, ETAG, type Piece, readMethods, ref, UNAUTHORIZED, values } from "./parts.ts";

const NO_TOKEN: Piece = { security: [] };

const KNOWN_TAG: Piece = {
  name: "If-None-Match",
  in: "header",
  description: "The `ETag` of the one that is known.",
  schema: { type: "string" },
};

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

export const HEALTH: Readonly<Record<string, Piece>> = {
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
};

export const ABOUT: Readonly<Record<string, Piece>> = {
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
      parameters: [KNOWN_TAG],
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
