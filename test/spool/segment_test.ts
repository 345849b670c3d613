import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { describe, test } from "node:test";
import { crc32 } from "node:zlib";
import fc from "fast-check";
import {
  mintedMs,
  parseSegmentName,
  type Range,
  readSegment,
  roughRows,
  SEAL_BYTES,
  sealLine,
  segmentName,
} from "../../src/spool/segment.ts";
import { uuid7 } from "../../src/kernel/names.ts";
import { patient } from "../kit/wait.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Rows that try to look like seals: blanks behind and within; text of any kind. */
const row = fc.oneof(
  fc.record({ eventType: fc.string({ unit: "binary" }), n: fc.integer() }).map((v) =>
    JSON.stringify(v)
  ),
  fc.tuple(fc.integer({ min: 0, max: 70 }), fc.integer({ min: 0, max: 70 }), fc.boolean()).map((
    [within, behind, tab],
  ) => "{" + (tab ? "\t" : " ").repeat(within) + '"a":{}}' + " ".repeat(behind)),
  fc.constantFrom('{"a":" "}', "{}", `{"a":"${" ".repeat(40)}"}`),
);
const group = fc.array(row, { minLength: 1, maxLength: 4 });

interface Written {
  readonly bytes: Uint8Array;
  /** Each group with its seal. */
  readonly groups: readonly (Range & { readonly text: string; readonly rows: number })[];
}

/** Not a `Buffer`: its `slice` would share the bytes that are about to be damaged. */
function joined(...pieces: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(pieces));
}

function write(groups: readonly (readonly string[])[]): Written {
  const pieces: Uint8Array[] = [];
  const placed = [];
  let at = 0;
  for (const rows of groups) {
    const text = rows.map((line) => `${line}\n`).join("");
    const bytes = encoder.encode(text);
    pieces.push(bytes, sealLine(bytes));
    placed.push({ start: at, end: at + bytes.length + SEAL_BYTES, text, rows: rows.length });
    at += bytes.length + SEAL_BYTES;
  }
  return { bytes: joined(...pieces), groups: placed };
}

function texts(bytes: Uint8Array, ranges: readonly Range[]): string[] {
  return ranges.map(({ start, end }) => decoder.decode(bytes.subarray(start, end)));
}

/** The seals of good groups and the two lists of ranges tile the file, in order. */
function assertTiles(bytes: Uint8Array): void {
  const { good, bad } = readSegment(bytes);
  const all = [...good.map((g) => ({ start: g.start, end: g.end + SEAL_BYTES })), ...bad]
    .sort((a, b) => a.start - b.start);
  let at = 0;
  for (const { start, end } of all) {
    assert.equal(start, at);
    assert.ok(end > start);
    at = end;
  }
  assert.equal(at, bytes.length);
}

function assertOnlyLost(damaged: Uint8Array, { groups }: Written, lost: (at: number) => boolean) {
  const content = readSegment(damaged);
  const kept = groups.filter((_, at) => !lost(at));
  assert.deepEqual(texts(damaged, content.good), kept.map(({ text }) => text));
  assert.equal(content.rows, kept.reduce((sum, { rows }) => sum + rows, 0));
  assertTiles(damaged);
}

const SAMPLE = write([
  ['{"eventType":"click"}', '{"eventType":"view","properties":{"x":"  \\t  "}}'],
  ['{"eventType":"größe"}'],
  ['{ "a": 1 }', `{"a":${" ".repeat(33)}2}`, '{"a":3}'],
  ['{"eventType":"last"}'],
]);

describe("a seal", () => {
  test("spells the CRC-32 in blanks and tabs, highest bit first", () => {
    assert.equal(decoder.decode(sealLine(0)), `${" ".repeat(32)}\n`);
    assert.equal(decoder.decode(sealLine(0xffffffff)), `${"\t".repeat(32)}\n`);
    assert.equal(decoder.decode(sealLine(0x80000001)), `\t${" ".repeat(30)}\t\n`);
    const rows = encoder.encode('{"a":1}\n');
    assert.deepEqual(sealLine(rows), sealLine(crc32(rows)));
    // The check value of CRC-32 in every catalogue: 0xcbf43926 for "123456789".
    const spelled = decoder.decode(sealLine(encoder.encode("123456789"))).slice(0, 32);
    const bits = spelled.replaceAll("\t", "1").replaceAll(" ", "0");
    assert.equal(parseInt(bits, 2), 0xcbf43926);
  });
});

describe("reading a segment", () => {
  test("an empty file holds nothing", () => {
    assert.deepEqual(readSegment(new Uint8Array(0)), { good: [], bad: [], rows: 0 });
  });

  test("whole: every group, nothing bad, whatever the rows look like", () => {
    fc.assert(fc.property(fc.array(group, { maxLength: 5 }), (groups) => {
      const written = write(groups);
      assertOnlyLost(written.bytes, written, () => false);
      assert.deepEqual(readSegment(written.bytes).bad, []);
    }));
  });

  test("truncated at every offset: the groups before it", () => {
    for (let at = 0; at <= SAMPLE.bytes.length; at++) {
      assertOnlyLost(SAMPLE.bytes.slice(0, at), SAMPLE, (g) => SAMPLE.groups[g]!.end > at);
    }
  });

  test("every bit of every byte flipped: all groups but the one that it is in", () => {
    for (let at = 0; at < SAMPLE.bytes.length; at++) {
      for (let bit = 0; bit < 8; bit++) {
        const damaged = SAMPLE.bytes.slice();
        damaged[at]! ^= 1 << bit;
        const touched = SAMPLE.groups.findIndex(({ end }) => at < end);
        assertOnlyLost(damaged, SAMPLE, (g) => g === touched);
      }
    }
  });

  test("any segment, any flipped bit, then any truncation", () => {
    fc.assert(fc.property(
      fc.array(group, { minLength: 1, maxLength: 6 }),
      fc.nat(),
      fc.nat(7),
      fc.nat(),
      (groups, place, bit, rest) => {
        const written = write(groups);
        const at = place % written.bytes.length;
        const damaged = written.bytes.slice();
        damaged[at]! ^= 1 << bit;
        const touched = written.groups.findIndex(({ end }) => at < end);
        assertOnlyLost(damaged, written, (g) => g === touched);
        const length = rest % (damaged.length + 1);
        assertOnlyLost(
          damaged.slice(0, length),
          written,
          (g) => g === touched || written.groups[g]!.end > length,
        );
      },
    ));
  });

  test("a hole of zeros, as a lost page leaves it: all groups but those that it touches", () => {
    fc.assert(fc.property(
      fc.array(group, { minLength: 1, maxLength: 8 }),
      fc.nat(),
      fc.integer({ min: 1, max: 200 }),
      (groups, place, length) => {
        const written = write(groups);
        const start = place % written.bytes.length;
        const damaged = written.bytes.slice();
        damaged.fill(0, start, start + length);
        assertOnlyLost(
          damaged,
          written,
          (g) => written.groups[g]!.start < start + length && written.groups[g]!.end > start,
        );
      },
    ));
  });

  test("a piece of another segment within: its whole groups and ours", () => {
    const [first, , , last] = SAMPLE.groups;
    const bytes = joined(
      SAMPLE.bytes.subarray(0, first!.end),
      encoder.encode('{"torn":'),
      SAMPLE.bytes.subarray(last!.start),
    );
    const content = readSegment(bytes);
    assert.deepEqual(texts(bytes, content.good), [first!.text, last!.text]);
    assert.deepEqual(texts(bytes, content.bad), ['{"torn":']);
  });

  test("any bytes at all: no error, and every byte is accounted for", () => {
    const odd = fc.constantFrom(...encoder.encode(" \t\n{}x\0"));
    fc.assert(fc.property(fc.array(odd, { maxLength: 400 }), (bytes) => {
      assertTiles(Uint8Array.from(bytes));
    }));
  });

  test("a seal alone seals nothing", () => {
    assert.deepEqual(readSegment(sealLine(0)).good, []);
    assert.equal(readSegment(sealLine(0)).bad.length, 1);
  });

  // 8 MiB that seem to hold a seal in every other line: what is hashed in search is bounded.
  test("a large file made to be slow is read in bounded time", () => {
    const piece = encoder.encode(`${" ".repeat(32)}\nx\n`);
    const bytes = new Uint8Array(8 * 1024 * 1024);
    for (let at = 0; at + piece.length <= bytes.length; at += piece.length) bytes.set(piece, at);
    const beganMs = performance.now();
    assert.equal(readSegment(bytes).good.length, 0);
    assert.ok(performance.now() - beganMs < patient(20_000));
  });
});

describe("rows in a bad range, roughly", () => {
  const cases: [text: string, rows: number][] = [
    ["", 0],
    ['{"a":1}\n{"a":2}\n', 2],
    ['{"a":1}\n{"a":', 2],
    [" \t \n{}\n", 1],
    [`{}\n${" ".repeat(32)}\n`, 1],
    [`{}\n${" ".repeat(20)}!${"\t".repeat(11)}\n`, 1],
    [`{}\n${" ".repeat(32)}`, 1],
    ["\0\0\0\n", 1],
  ];
  for (const [text, rows] of cases) {
    test(`${JSON.stringify(text)} holds ${rows}`, () => {
      const bytes = encoder.encode(`#${text}\n#`);
      assert.equal(roughRows(bytes, { start: 1, end: 1 + text.length }), rows);
    });
  }
});

describe("the name of a segment", () => {
  const ID = "01900000-0000-7000-8000-00000000000a";

  test("says what the batch is, and is read back", () => {
    const shapes = fc.constantFrom("event" as const, "row" as const);
    const fingerprints = fc.option(
      fc.string({ unit: fc.constantFrom(..."0123456789abcdef"), minLength: 32, maxLength: 32 }),
    );
    const times = fc.integer({ min: 0, max: 2 ** 48 - 1 });
    fc.assert(fc.property(times, shapes, fingerprints, (nowMs, shape, fingerprint) => {
      const name = { id: uuid7(nowMs), shape, fingerprint };
      assert.deepEqual(parseSegmentName(segmentName(name)), name);
      assert.equal(mintedMs(name.id), nowMs);
    }));
    assert.equal(
      segmentName({ id: ID, shape: "event", fingerprint: null }),
      `${ID}.event.-.ndjson`,
    );
  });

  const foreign = [
    "",
    "x",
    `${ID}.event.-`,
    `${ID}.event.-.ndjson/`,
    `${ID}.event.-.ndjson~`,
    `${ID}.event..ndjson`,
    `${ID}.event.a.b.ndjson`,
    `${ID}.other.-.ndjson`,
    `${ID.toUpperCase()}.event.-.ndjson`,
    `${ID.replace("-7", "-4")}.event.-.ndjson`,
    `${ID}.event.${"a".repeat(65)}.ndjson`,
    `../${ID}.event.-.ndjson`,
    `${ID}.event.-.ndjson\n`,
  ];
  for (const text of foreign) {
    test(`${JSON.stringify(text)} is none`, () => assert.equal(parseSegmentName(text), null));
  }

  test("is never made of something else", () => {
    assert.throws(() => segmentName({ id: "x", shape: "row", fingerprint: null }), /"x\.row/);
    assert.throws(() => segmentName({ id: ID, shape: "row", fingerprint: "a/b" }), /a\/b/);
  });
});
