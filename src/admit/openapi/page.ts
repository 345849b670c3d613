/** The description of the page and of what it is told. */

import {
  ETAG,
  type Piece,
  readMethods,
  refusal,
  RETRY_AFTER,
  UNAUTHORIZED,
  values,
} from "./parts.ts";

export const PAGE: Readonly<Record<string, Piece>> = {
  "/": {
    get: {
      operationId: "getPage",
      tags: ["watching"],
      summary: "The page: all of this to look at.",
      security: [],
      parameters: [{
        name: "If-None-Match",
        in: "header",
        description: "The `ETag` of the one that is known.",
        schema: { type: "string" },
      }],
      responses: {
        "200": {
          description: "One document that loads nothing from elsewhere.",
          headers: ETAG,
          content: { "text/html": { schema: { type: "string" } } },
        },
        "304": { description: "It is the known one.", headers: ETAG },
        "405": readMethods("/"),
      },
    },
  },
  "/api/live": {
    get: {
      operationId: "getLive",
      tags: ["watching"],
      summary: "What the page shows, as server-sent events; a moment about once a second.",
      responses: {
        "200": {
          description:
            "Events `about`, `past` (an hour), `now`, `problems`, and `end` at a stop. What is in " +
            "them is for the page of the same version, and may change with it.",
          content: {
            "text/event-stream": {
              schema: { type: "string" },
              examples: values({ end: "event: end\ndata: {}\n\n" }),
            },
          },
        },
        "401": UNAUTHORIZED,
        "405": readMethods("/api/live"),
        "503": refusal(
          "Too many viewers, or stopping.",
          "no more than 32 viewers at a time",
          RETRY_AFTER,
        ),
      },
    },
  },
};
