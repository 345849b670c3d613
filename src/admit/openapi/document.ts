/**
 * `/openapi.json`: the HTTP interface as OpenAPI 3.1, put together of one file a kind of route. A test
 * holds it to the routes that are served, sends every example of it and holds each answer to its
 * schema, so it says what is so. Loaded when it is asked for first.
 */

import { createHash } from "node:crypto";
import { EVENTS } from "../reads.ts";
import { ABOUT, HEALTH } from "./about.ts";
import { DEAD } from "./dead.ts";
import { PAGE } from "./page.ts";
import { KEPT_OUT, type Piece } from "./parts.ts";
import { questions } from "./questions.ts";
import { SCHEMAS } from "./schemas.ts";
import { WRITES } from "./writes.ts";

/** The answers of the gate that every route but those of health stands behind. */
function guarded(paths: Readonly<Record<string, Piece>>): Record<string, Piece> {
  const guard = (operation: unknown): unknown => {
    const { responses, ...rest } = operation as { responses: Piece };
    return { ...rest, responses: { ...KEPT_OUT, ...responses } };
  };
  return Object.fromEntries(
    Object.entries(paths).map(([path, item]) => [
      path,
      Object.fromEntries(
        Object.entries(item).map(([name, value]) => [
          name,
          name === "parameters" ? value : guard(value),
        ]),
      ),
    ]),
  );
}

/** The document as text that stays the same, with its quoted `ETag`. */
export interface Description {
  readonly text: string;
  readonly tag: string;
}

const ABOUT_ALL =
  "Takes JSON events, answers when they are safe, and writes them to ClickHouse in batches. " +
  "`HEAD` works wherever `GET` does. Examples of a request and of an answer that have the same name " +
  "belong together.";

export function describe(version: string): Description {
  const document = {
    openapi: "3.1.0",
    info: {
      title: "Shishi",
      version,
      summary: "An edge collector for ClickHouse.",
      description: ABOUT_ALL,
      license: { name: "MIT", identifier: "MIT" },
    },
    servers: [{ url: "/", description: "The collector that serves this document." }],
    security: [{ token: [] }, {}],
    tags: [
      { name: "writing", description: "Rows go in." },
      { name: "stored events", description: "What ClickHouse has." },
      { name: "dead letters", description: "Rows that ClickHouse refused for good." },
      { name: "watching", description: "How the collector is." },
    ],
    paths: {
      ...guarded({ ...WRITES, ...questions(EVENTS), ...DEAD, ...ABOUT, ...PAGE }),
      ...HEALTH,
    },
    components: {
      securitySchemes: {
        token: {
          type: "http",
          scheme: "bearer",
          description: "One of `auth-tokens`; needed once they are set, but for health.",
        },
      },
      schemas: SCHEMAS,
    },
  };
  const text = `${JSON.stringify(document)}\n`;
  const tag = `"${createHash("sha256").update(text).digest("hex").slice(0, 32)}"`;
  return { text, tag };
}
