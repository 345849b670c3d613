/**
 * No event type can break a line or inject one, and the real InfluxDB gives back what was meant.
 * Runs once: what InfluxDB makes of lines is asked; mirror_test.ts has the way to it on both runtimes.
 */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { after, before, describe, test } from "node:test";
import fc from "fast-check";
import { createLedger } from "../../src/meter/ledger.ts";
import { boundedLabel, tagValue } from "../../src/meter/label.ts";
import { createMirror } from "../../src/meter/mirror.ts";
import { memoryLog } from "../kit/chunks.ts";
import { type Influx, startInflux } from "../kit/servers.ts";
import { events, fixedHoldings } from "./kit.ts";
import { assertSame, hastyClock, LONG_MS, sums } from "./mirror_kit.ts";

let influx: Influx;
before(async () => {
  influx = await startInflux();
});
after(async () => {
  await influx.close();
});

/** What a reader of the tag does to have the text back, as with a URL. */
function meant(tag: string): string {
  return tag.replace(
    /(?:%[0-9A-Fa-f]{2})+/g,
    (escapes) => Buffer.from(escapes.replaceAll("%", ""), "hex").toString(),
  );
}

const AWKWARD = [
  "a,b",
  "a b",
  "a=b",
  ",",
  " ",
  "=",
  "\\",
  "\\\\",
  "\\,",
  "\\ ",
  "\\=",
  "\\'",
  "\\\\,",
  "ends\\",
  "ends\\\\",
  "ends\\ ",
  "\\n",
  "a\nb",
  "\n",
  "\r",
  "\r\n",
  "x\\\nshishi_events,table=t accepted=99i",
  "x accepted=1i\nshishi_events,event_type=y accepted=99i 1\n",
  'accepted="1"',
  '"',
  "'",
  "#comment",
  "\0",
  "a\0b",
  "\x1b[31m",
  "\x7f",
  "\x85",
  "\u2028",
  "%",
  "%%",
  "100%",
  "%0A",
  "%0a",
  "%250A",
  "%4\n",
  "%0%0A",
  "é",
  "日本語",
  "😀",
  "\ufeff",
  "\ufffd",
  "\uffff",
  "_field",
  "time",
  "table",
  "constructor",
  "other",
];

const text = fc.oneof(
  fc.string({ unit: "binary" }),
  fc.string({ unit: fc.constantFrom(..."\\,= \n%0Aa4\r\t\"'#", "é", "😀", "a") }),
  // Surrogates that stand alone, and texts that are longer than a label may be.
  fc.string({ unit: fc.constantFrom("\ud83d", "\ude00", "\ud800", "\\", "\n", "a") }),
  fc.tuple(fc.constantFrom(...AWKWARD), fc.integer({ min: 100, max: 20_000 }), fc.nat(99))
    .map(([awkward, times, n]) => awkward.repeat(times) + n),
  fc.constantFrom(...AWKWARD),
);

describe("a tag value", () => {
  test("is the text itself where the protocol can carry it", () => {
    for (
      const plain of ["click", "a,b", "a b", "a=b", "C:\\dir", "it's", "100%", "日本語", '"', "%zz"]
    ) {
      assert.equal(tagValue(plain), plain);
    }
  });

  test("is left out for an empty text", () => {
    assert.equal(tagValue(""), null);
  });

  test("can be read back, is one line, and ends in no backslash", () => {
    fc.assert(fc.property(text, (text) => {
      const tag = tagValue(text);
      if (tag === null) return assert.equal(text, "");
      assert.equal(meant(tag), boundedLabel(text));
      // deno-lint-ignore no-control-regex
      assert.doesNotMatch(tag, /[\u0000-\u001f]|\\$/);
    }));
  });

  test("is small for a huge text, and different for another one", () => {
    const huge = "\n".repeat(65_536);
    const one = tagValue(huge + "1")!;
    assert.ok(Buffer.byteLength(one) < 4096);
    assert.notEqual(one, tagValue(huge + "2"));
  });
});

describe("the real InfluxDB gives back", () => {
  let serial = 0;

  /** Writes these event types with different counts and reads them back as they were meant. */
  async function roundTrip(types: readonly string[]): Promise<void> {
    const database = `tags${++serial}`;
    const ledger = createLedger();
    ledger.accepted(events(Object.fromEntries(types.map((type, at) => [type, at + 1]))));
    const log = memoryLog();
    const mirror = createMirror({
      endpoint: { url: influx.url, user: "", password: "", database, label: influx.url },
      intervalMs: 1000,
      ledger,
      holdings: fixedHoldings(),
      group: "eu",
      id: "host-1",
      clock: hastyClock,
      log,
      rssBytes: () => 1e8,
      timeoutMs: LONG_MS,
    });
    await mirror.writeLast(LONG_MS);
    assert.deepEqual(log.lines, []);
    const found = (await sums(influx, database))
      .map((row) => ({ ...row, eventType: meant(row.eventType) }));
    assertSame(found, ledger.typeTotals());
    const names = await influx.query(database, "SHOW MEASUREMENTS");
    assert.deepEqual(names.map((row) => row.name), ["shishi_collector", "shishi_events"]);
    const keys = await influx.query(database, "SHOW TAG KEYS FROM shishi_events");
    for (const { tagKey } of keys) {
      assert.ok(["event_type", "table", "group", "id"].includes(String(tagKey)), String(tagKey));
    }
  }

  test("each awkward event type alone, so that each could be the last of its line", async () => {
    for (const type of AWKWARD) await roundTrip([type]);
  });

  test("all awkward event types together, with an empty one and 64 KB ones", async () => {
    const huge = "é,\\ ".repeat(16_384);
    await roundTrip([...AWKWARD, "", huge + "1", huge + "2", "\ud800", "\udfff"]);
  });

  test("hundreds of random event types together", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(fc.oneof(text, fc.string({ unit: "binary", maxLength: 400 })), {
          minLength: 100,
          maxLength: 400,
          size: "max",
        }),
        roundTrip,
      ),
      { numRuns: 8, endOnFailure: true },
    );
  });
});
