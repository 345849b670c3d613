/** The description of the routes that take rows. */

import {
  answer,
  BODY_REFUSALS,
  CLOSED,
  CONTENT_ENCODING,
  json,
  type Piece,
  PREFERENCE_APPLIED,
  ref,
  refusal,
  RETRY_AFTER,
  UNAUTHORIZED,
  values,
  wrongMethod,
} from "./parts.ts";

const PARAMETERS: readonly Piece[] = [
  {
    name: "strict",
    in: "query",
    description: "One bad row refuses the request, as with `Prefer: handling=strict`.",
    schema: { type: "string", enum: ["", "1", "true"] },
  },
  {
    name: "Prefer",
    in: "header",
    description:
      "RFC 7240: `handling=strict`, and `wait=N` to wait up to N seconds for the INSERT.",
    schema: { type: "string" },
    example: "handling=strict, wait=5",
  },
  CONTENT_ENCODING,
];

const taken = (accepted: number, ack: string, errors: readonly unknown[] = []) => ({
  accepted,
  rejected: errors.length,
  ack,
  errors,
});

function body(schema: string, examples: Piece, lines: Piece, broken: Piece): Piece {
  return {
    required: true,
    description: "One JSON object, an array of them, or NDJSON, told apart by the bytes.",
    content: {
      ...json(
        { oneOf: [ref(schema), { type: "array", items: ref(schema), minItems: 1 }] },
        examples,
      ),
      "application/x-ndjson": {
        schema: { type: "string", description: "One JSON object a line." },
        examples: values(lines),
      },
      "text/plain": {
        schema: { type: "string", description: "As above; what `sendBeacon` sends." },
        examples: values(broken),
      },
    },
  };
}

const BAD_TYPE = { index: 1, error: "eventType: expected a string, got 5" };

/** Of every write. `accepted` and `refused` are examples by name, as in the request. */
function answers(
  path: string,
  accepted: Piece,
  refused: Piece,
): Piece {
  return {
    "200": answer(
      "At least one row was taken, and all that were are inserted: `ack` is `clickhouse`, or " +
        "`Prefer: wait=N` was given and N seconds sufficed.",
      ref("Taken"),
      { inserted: taken(1, "clickhouse") },
      PREFERENCE_APPLIED,
    ),
    "202": answer("At least one row was taken.", ref("Taken"), accepted, PREFERENCE_APPLIED),
    "400": answer(
      "No row was taken.",
      { oneOf: [ref("NoneTaken"), ref("Error")] },
      refused,
      PREFERENCE_APPLIED,
    ),
    "401": UNAUTHORIZED,
    "405": wrongMethod(path, "POST", "GET"),
    ...BODY_REFUSALS,
    "429": refusal(
      "The backlog is full, or the client beyond `rate-limit`: nothing of the request was taken.",
      "the backlog is full: 1000000 rows are held, at most 1000000 may be",
      RETRY_AFTER,
    ),
    "503": CLOSED,
  };
}

const EVENTS_PATH: Piece = {
  post: {
    operationId: "postEvents",
    tags: ["writing"],
    summary: "Take analytics events.",
    parameters: PARAMETERS,
    requestBody: body("Event", {
      "one event": {
        eventType: "buy",
        userId: "u1",
        timestamp: "2026-01-31T12:00:00.000Z",
        id: "01890a5d-ac96-774b-bcce-b302099a8057",
        properties: { price: 9.9, items: ["a", "b"] },
      },
      "several": [{ eventType: "click" }, { eventType: "click", timestamp: 1769860800000 }],
    }, {
      "lines": '{"eventType":"click","userId":"u1"}\n{"eventType":"click","userId":"u2"}\n',
      "one bad row": '{"eventType":"click"}\n{"eventType":5}\n',
    }, {
      "no good row": '{"eventType":"click"',
      "nothing": "",
      "an unknown key": '{"eventType":"click","colour":"red"}',
    }),
    responses: answers("/events", {
      "one event": taken(1, "disk"),
      "several": taken(2, "disk"),
      "lines": taken(2, "disk"),
      "one bad row": taken(1, "disk", [BAD_TYPE]),
    }, {
      "no good row": {
        accepted: 0,
        rejected: 1,
        errors: [{ index: 0, error: 'not JSON: {"eventType":"click"' }],
      },
      "nothing": {
        error: "the body is empty; expected one JSON object, an array of objects, or NDJSON",
      },
      "an unknown key": {
        accepted: 0,
        rejected: 1,
        errors: [{
          index: 0,
          error: "colour: unknown key; an event has eventType, userId, timestamp, id, properties",
        }],
      },
    }),
  },
};

const TABLE_PATH: Piece = {
  parameters: [{
    name: "table",
    in: "path",
    required: true,
    description: "One of `tables`.",
    schema: { type: "string", pattern: "^[A-Za-z_][A-Za-z0-9_]{0,126}$" },
    example: "flights",
  }],
  post: {
    operationId: "postRows",
    tags: ["writing"],
    summary: "Take rows for another table.",
    parameters: PARAMETERS,
    requestBody: body("Row", {
      "one row": { date: "2001-01-01 00:47:00", delay: 66, origin: "DTW" },
      "several": [{ delay: 1, origin: "DTW" }, { delay: 2, origin: "LAX" }],
    }, {
      "lines": '{"delay":66,"origin":"DTW"}\n{"delay":-3,"origin":"LAX"}\n',
    }, {
      "no column": '{"delay":66,"colour":"red"}',
    }),
    responses: {
      ...answers("/events/flights", {
        "one row": taken(1, "disk"),
        "several": taken(2, "disk"),
        "lines": taken(2, "disk"),
      }, {
        "no column": {
          accepted: 0,
          rejected: 1,
          errors: [{
            index: 0,
            error: "colour: no column of flights, which has date, delay, origin",
          }],
        },
      }),
      "404": refusal(
        "The table is not one of `tables`, or is not there.",
        "there is no table flights",
      ),
    },
  },
};

export const WRITES: Readonly<Record<string, Piece>> = {
  "/events": EVENTS_PATH,
  "/events/{table}": TABLE_PATH,
};
