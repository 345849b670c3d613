/** The description of the routes about dead letters. */

import { LETTERS } from "../reads.ts";
import {
  answer,
  BODY_REFUSALS,
  CLOSED,
  CONTENT_ENCODING,
  json,
  type Piece,
  readMethods,
  ref,
  refusal,
  RETRY_AFTER,
  UNAUTHORIZED,
  wrongMethod,
} from "./parts.ts";
import { whole } from "./questions.ts";

const REASON = "Cannot parse JSON object: expected a number";
const NOTHING = { stored: 0, dead: 0, left: 0, reasons: [], problems: [] };

const LETTER = {
  table: "flights",
  id: "019b2a40-1f00-7000-8000-000000000000.3",
  time: "2026-01-31T12:00:00.000Z",
  code: 27,
  message: REASON,
  row: '{"delay":"late","origin":"DTW"}',
  rowLength: 31,
  shape: "row",
  batch: "019b2a40-1f00-7000-8000-000000000000",
  index: 3,
};

const DISK = refusal(
  "The disk cannot be read.",
  "the disk with the dead letters says EIO",
  RETRY_AFTER,
);

export const DEAD: Readonly<Record<string, Piece>> = {
  "/api/dead": {
    get: {
      operationId: "listDeadLetters",
      tags: ["dead letters"],
      summary: "Rows that ClickHouse refused for good, the newest first.",
      parameters: [
        {
          name: "table",
          in: "query",
          description: "Only rows of this table.",
          schema: { type: "string" },
          example: "flights",
        },
        whole("limit", "So many at most.", LETTERS),
      ],
      responses: {
        "200": answer("As the disk has them.", ref("DeadLetters"), {
          letters: { letters: [LETTER], total: 1 },
        }),
        "400": refusal(
          "A parameter is wrong: every problem at once.",
          "limit: expected a whole number from 1 to 500, got all",
        ),
        "401": UNAUTHORIZED,
        "405": readMethods("/api/dead"),
        "503": DISK,
      },
    },
  },
  "/api/dead/replay": {
    post: {
      operationId: "replayDeadLetters",
      tags: ["dead letters"],
      summary: "Send them again.",
      description:
        "Takes up to 25 s. Replaying twice stores a row once, on a table with a deduplication window.",
      parameters: [CONTENT_ENCODING],
      requestBody: {
        required: false,
        description: "Which ones; all of them unless given.",
        content: json(ref("ReplayWanted"), {
          "all": {},
          "of a table": { table: "flights" },
          "some": { table: "flights", ids: [LETTER.id] },
        }),
      },
      responses: {
        "200": answer("All that were meant are done with.", ref("Replayed"), {
          "all": NOTHING,
          "of a table": NOTHING,
          "some": NOTHING,
          "done": { ...NOTHING, stored: 2, dead: 1, reasons: [{ reason: REASON, letters: 1 }] },
        }),
        "202": answer("Some are left: replay again.", ref("Replayed"), {
          left: {
            ...NOTHING,
            left: 3,
            problems: [
              "the collector has the rows, ClickHouse has not taken them yet; the next replay goes " +
              "on from here",
            ],
          },
        }),
        "400": refusal(
          "The body is wrong: every problem at once.",
          "ids: expected 1 to 500 ids of letters, got 5",
        ),
        "401": UNAUTHORIZED,
        "405": wrongMethod("/api/dead/replay", "POST", "GET"),
        "409": refusal(
          "Somebody else replays or purges.",
          "a replay or a purge is under way; try again when it has ended",
        ),
        ...BODY_REFUSALS,
        "429": refusal(
          "Too many bodies at once, or the client is beyond `rate-limit`.",
          "too many bodies are being read at the moment",
          RETRY_AFTER,
        ),
        "503": CLOSED,
      },
    },
  },
};
