/**
 * `/openapi.json` says what the app serves and what the rules of events are, and a linter likes it.
 * Runs once: the table that is compared is made of text alone; app_test.ts has the app on both runtimes.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import { createConfig, lintFromString } from "@redocly/openapi-core";
import fc from "fast-check";
import { ENCODINGS } from "../../src/admit/body.ts";
import { MOST_ERRORS } from "../../src/admit/decode.ts";
import { FIELDS, UUID } from "../../src/admit/event.ts";
import { EVENTS, LETTERS } from "../../src/admit/reads.ts";
import {
  EARLIEST_MS,
  LATEST_MS,
  SECONDS_BELOW,
  TIMESTAMP_WANTED,
} from "../../src/admit/timestamp.ts";
import { TABLE_NAME_PATTERN } from "../../src/kernel/names.ts";
import { faults, openapi, operations } from "../kit/openapi.ts";
import { rounds } from "../kit/rounds.ts";
import { appOn, ask, decodeEvents, Script } from "./kit.ts";

test("every route that is served is described, and every one that is described is served", () => {
  const served = appOn(new Script(), { pixel: true }).routes
    .map(({ method, path }) => `${method.toLowerCase()} ${path.replace(/:(\w+)/g, "{$1}")}`);
  const described = operations.map(({ method, path }) => `${method} ${path}`);
  assert.deepEqual(described.sort(), served.sort());
});

const lint = async (document: unknown) =>
  (await lintFromString({
    source: JSON.stringify(document),
    absoluteRef: "/openapi.json",
    config: await createConfig({ extends: ["recommended"] }),
  })).map(({ severity, ruleId, message, location }) =>
    `${severity} ${ruleId}: ${message} ${location[0]?.pointer}`
  );

test("the linter has nothing to say", async () => {
  assert.deepEqual(await lint(openapi), []);
  const { components: _, ...broken } = openapi;
  assert.notDeepEqual(await lint(broken), []);
});

test("what is a constant of the program is the same in the document", () => {
  const { parameters, schemas } = openapi.components;
  const { Event, Taken, NoneTaken, StoredEvent, ReplayWanted } = schemas;
  assert.deepEqual(Object.keys(Event.properties), FIELDS);
  const uuid = UUID.source.replaceAll("a-f", "a-fA-F");
  assert.equal(StoredEvent.properties.id.pattern, uuid);
  assert.equal(Event.properties.id.pattern, `^(?:${uuid.slice(1, -1)}|[0-9a-fA-F]{32})$`);
  const { description, oneOf: [, ms, seconds, before] } = Event.properties.timestamp;
  assert.deepEqual([before.exclusiveMinimum, ms.exclusiveMaximum], [
    EARLIEST_MS - 1,
    LATEST_MS + 1,
  ]);
  assert.deepEqual([before.maximum, ms.minimum], [-SECONDS_BELOW, SECONDS_BELOW]);
  assert.equal(seconds.exclusiveMaximum * 1000, LATEST_MS + 1);
  assert.ok(description.startsWith(`${TIMESTAMP_WANTED};`));
  for (const { properties } of [Taken, NoneTaken]) {
    assert.equal(properties.errors.maxItems, MOST_ERRORS);
  }
  assert.deepEqual(
    parameters.ContentEncoding.schema.enum,
    [...ENCODINGS.split(", "), "identity"],
  );
  const [table] = openapi.paths["/events/{table}"].parameters;
  assert.equal(table.schema.pattern, TABLE_NAME_PATTERN);
  assert.equal(ReplayWanted.properties.ids.maxItems, LETTERS.most);
  for (
    const [path, { usual, most }] of [["/api/events", EVENTS], ["/api/dead", LETTERS]] as const
  ) {
    const { schema, example } = operations.find((one) => one.path === path)!.described.parameters
      .find(({ name }: { name: string }) => name === "limit");
    assert.deepEqual([schema.maximum, schema.default, example], [most, usual, usual], path);
  }
});

test("its examples of errors tell the constants of the program", () => {
  const told = JSON.stringify(openapi);
  for (
    const text of [
      `expected one of ${ENCODINGS}, got`,
      `expected ${TIMESTAMP_WANTED}, got`,
      `expected a whole number from 1 to ${LETTERS.most}, got`,
      `expected 1 to ${LETTERS.most} ids of letters, got`,
      `an event has ${FIELDS.join(", ")}`,
    ]
  ) assert.ok(told.includes(text), text);
});

const accepts = (event: unknown): boolean => {
  const decoded = decodeEvents(JSON.stringify(event));
  return decoded.kind === "rows" && decoded.rows === 1;
};
const describes = (event: unknown): boolean =>
  faults(JSON.parse(JSON.stringify(event)), "components", "schemas", "Event").length === 0;

/** Both say the same of an event; told with the event where they do not. */
function assertAgreed(event: unknown): void {
  assert.equal(describes(event), accepts(event), JSON.stringify(event));
}

const digits = (min: number, max: number, length = 2) =>
  fc.integer({ min, max }).map((number) => String(number).padStart(length, "0"));
const date = fc.tuple(digits(1898, 2301, 4), digits(0, 13), digits(0, 32))
  .map((parts) => parts.join("-"))
  // A zone moves these into the range or out of it, which no pattern tells.
  .filter((date) => !["1899-12-31", "1900-01-01", "2299-12-31", "2300-01-01"].includes(date));
const leapDay = fc.integer({ min: 1896, max: 2300 }).map((year) => `${year}-02-29`);
const clockTime = fc.tuple(
  fc.constantFrom("T", " ", "t", ""),
  digits(0, 25),
  fc.constantFrom(":", ""),
  digits(0, 60),
  fc.oneof(fc.constant(""), digits(0, 60).map((second) => `:${second}`)),
  fc.constantFrom("", "", ".", ".1", ".123456789"),
  fc.constantFrom("", "Z", "z", "+02", "+0200", "+02:00", "-14:59", "+15", "+2", " 02:00", "UTC"),
).map((parts) => parts.join(""));
const timestamp = fc.oneof(
  fc.tuple(fc.oneof(date, leapDay), fc.oneof(fc.constant(""), clockTime)).map((t) => t.join("")),
  fc.date({ noInvalidDate: true, min: new Date("1901-01-01"), max: new Date("2299-01-01") })
    .map((date) => date.toISOString()),
  fc.integer({ min: Date.UTC(1900, 0, 1) - 2, max: Date.UTC(1900, 0, 1) + 2 }),
  fc.integer({ min: Date.UTC(2300, 0, 1) - 3, max: Date.UTC(2300, 0, 1) + 3 }),
  fc.integer({ min: 1e11 - 3, max: 1e11 + 3 }),
  fc.integer({ min: -1e11 - 3, max: -1e11 + 3 }),
  fc.integer({ min: Date.UTC(2300, 0, 1) / 1000 - 3, max: Date.UTC(2300, 0, 1) / 1000 + 3 }),
  fc.maxSafeInteger(),
  fc.double({ noDefaultInfinity: true, noNaN: true, min: -1e15, max: 1e15 }),
);

test("a timestamp that the schema describes is taken, and no other", () => {
  fc.assert(
    fc.property(timestamp, (timestamp) => assertAgreed({ eventType: "a", timestamp })),
    { numRuns: rounds(600) },
  );
  assert.ok(accepts({ eventType: "a", timestamp: "2000-02-29 23:59+14:00" }));
  assert.ok(!accepts({ eventType: "a", timestamp: "1900-02-29" }));
});

const odd = fc.jsonValue({ maxDepth: 2 });
const sometimes = <T>(usual: fc.Arbitrary<T>) =>
  fc.option(fc.oneof({ weight: 4, arbitrary: usual }, { weight: 1, arbitrary: odd }), {
    nil: undefined,
  });
const event = fc.record({
  eventType: fc.oneof(
    { weight: 6, arbitrary: fc.string({ minLength: 1, unit: "binary" }) },
    fc.constantFrom("", undefined),
    odd,
  ),
  userId: sometimes(fc.oneof(fc.string({ unit: "binary" }), fc.maxSafeInteger(), fc.double())),
  timestamp: sometimes(timestamp),
  id: sometimes(fc.oneof(
    fc.uuid(),
    fc.uuid().map((id) => id.toUpperCase()),
    fc.uuid().map((id) => id.slice(1)),
    fc.uuid().map((id) => id.replace("-", "")),
    fc.uuid().map((id) => id.replaceAll("-", "")),
  )),
  properties: sometimes(fc.dictionary(fc.string(), odd)),
});

test("an event that the schema describes is taken, and no other", () => {
  let taken = 0;
  fc.assert(
    fc.property(
      fc.oneof({ weight: 9, arbitrary: event }, odd),
      odd,
      fc.boolean(),
      (e, more, add) => {
        const given = add && e !== null && typeof e === "object" && !Array.isArray(e)
          ? { ...e as object, [JSON.stringify(more).slice(0, 9)]: more }
          : e;
        // An array is several events, and anything else no event.
        fc.pre(!Array.isArray(given) && given !== undefined);
        assertAgreed(given);
        if (accepts(given)) taken++;
      },
    ),
    { numRuns: rounds(400) },
  );
  // About seven in a hundred, by chance.
  assert.ok(taken > rounds(400) / 100, `${taken} of them were good`);
});

test("HEAD of what never ends ends it", async () => {
  const script = new Script();
  let ended = false;
  const endless = new ReadableStream({ cancel: () => void (ended = true) });
  script.page = { ...script.page, live: () => Promise.resolve(new Response(endless)) };
  assert.equal((await ask(appOn(script), "/api/live", { method: "HEAD" })).status, 200);
  assert.ok(ended);
});

test("it is served once and known again by its tag", async () => {
  const app = appOn(new Script());
  const first = await ask(app, "/openapi.json");
  assert.equal(first.status, 200);
  assert.equal(first.headers.get("content-type"), "application/json");
  assert.equal(first.headers.get("cache-control"), "no-cache");
  assert.equal(((await first.json()) as typeof openapi).openapi, "3.1.0");
  const tag = first.headers.get("etag") ?? "";
  for (const known of [tag, `W/${tag}`, `"other", ${tag}`]) {
    const again = await ask(app, "/openapi.json", { headers: { "if-none-match": known } });
    assert.deepEqual([again.status, await again.text()], [304, ""], known);
    assert.equal(again.headers.get("etag"), tag);
  }
  const other = await ask(app, "/openapi.json", { headers: { "if-none-match": '"other"' } });
  assert.equal(other.status, 200);
});

test("HEAD where GET is, 405 with Allow for every other method", async () => {
  const app = appOn(new Script(), { pixel: true });
  for (const path of Object.keys(openapi.paths)) {
    const real = path.replace("{table}", "flights");
    const reads = openapi.paths[path].get !== undefined;
    const head = await ask(app, real, { method: "HEAD" });
    assert.deepEqual([head.status, await head.text()], [reads ? 200 : 405, ""], path);
    const taken = Object.keys(openapi.paths[path]).map((method) => method.toUpperCase())
      .filter((method) => ["GET", "POST", "DELETE"].includes(method));
    const allowed = taken.join(", ").replace("GET", "GET, HEAD");
    for (const method of ["OPTIONS", "GET", "POST", "PUT", "DELETE", "PATCH"]) {
      if (taken.includes(method)) continue;
      const answer = await ask(app, real, { method });
      assert.equal(answer.status, 405, `${method} ${path}`);
      assert.equal(answer.headers.get("allow"), allowed);
    }
  }
});
