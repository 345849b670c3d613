/** The description of the questions about stored events. */

import {
  answer,
  type Piece,
  readMethods,
  ref,
  refusal,
  RETRY_AFTER,
  UNAUTHORIZED,
} from "./parts.ts";

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
    "Too many questions at once, or the client is beyond `rate-limit`.",
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
