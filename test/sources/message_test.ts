/** Messages → rows, with the collector's own reader: forms, poison among good ones, metadata, encodings, tables. */

import assert from "node:assert/strict";
import { gzipSync } from "node:zlib";
import { describe, test } from "node:test";
import fc from "fast-check";
import { createShared } from "../../src/admit/app.ts";
import { createMessageReader } from "../../src/admit/message_reader.ts";
import type { Columns, Message, MessageReader, MetaValue, Tables } from "../../src/contracts.ts";
import { systemClock } from "../../src/kernel/time.ts";
import {
  isEmpty,
  type MakeOptions,
  makeRows,
  PIECE_BYTES,
  piecesOf,
} from "../../src/sources/message.ts";
import { rounds } from "../kit/rounds.ts";

const column = (name: string, type: string) => ({ name, type, defaultKind: "" as const });
const COLUMNS = [column("n", "UInt8"), column("s", "String"), column("_offset", "UInt64")];
const FLIGHTS: Columns = {
  names: new Set(COLUMNS.map(({ name }) => name)),
  closed: new Map(),
  columns: COLUMNS,
  fingerprint: "f",
  takesNone: null,
};

function readerOf(tables: Readonly<Record<string, Columns | "missing">> = { flights: FLIGHTS }) {
  const columns = (table: string) => tables[table] ?? "unknown";
  const all: Tables = {
    columns,
    lookUp: (table) => Promise.resolve(columns(table)),
    refresh: (table) => Promise.resolve(columns(table)),
    doubt() {},
  };
  const settings = {
    typeCheck: "strict" as const,
    eventWindow: { maxAgeMs: null, maxSkewMs: null },
    table: "events",
    maxBodyBytes: 1024 * 1024,
    id: "edge-1",
  };
  return createMessageReader(
    () => ({ tables: all, clock: systemClock, settings }),
    createShared(systemClock),
  );
}

let offset = 0;
function message(body: string | Uint8Array, more: Partial<Message> = {}): Message {
  const at = offset++;
  const known: Readonly<Record<string, MetaValue>> = {
    _offset: at,
    _topic: "t",
    _headers: { a: "1" },
  };
  return {
    body: typeof body === "string" ? new TextEncoder().encode(body) : body,
    partition: "p",
    address: `fake:p@${at}`,
    meta: (name) => known[name] ?? null,
    ...more,
  };
}

async function make(
  bodies: readonly (string | Uint8Array | Message)[],
  options: Partial<MakeOptions> = {},
) {
  const messages = bodies.map((body) =>
    typeof body === "string" || body instanceof Uint8Array ? message(body) : body
  );
  const made = await makeRows(messages, {
    reader: readerOf(),
    table: "flights",
    meta: [],
    stops: false,
    ...options,
  });
  assert.ok(made.kind === "made", JSON.stringify(made));
  const { chunk, poison, empty, used } = made;
  const text = chunk === null ? "" : new TextDecoder().decode(chunk.body);
  return {
    rows: text.split("\n").slice(0, -1),
    count: chunk?.rows ?? 0,
    poison: poison.map(({ message, index, bytes, error }) => ({
      at: messages.indexOf(message),
      index,
      text: new TextDecoder().decode(bytes),
      error,
    })),
    empty,
    used,
  };
}

describe("rows of a table", () => {
  test("one object, an array, lines, and nothing", async () => {
    const { rows, count, poison, empty } = await make([
      '{"n":1}',
      '[{"n":2}, {"n":3}]',
      '\n {"n":4}\r\n{"n":5}\n',
      "",
      "[]",
      " null ",
    ]);
    assert.deepEqual(rows.map((row) => JSON.parse(row).n), [1, 2, 3, 4, 5]);
    assert.deepEqual([count, poison, empty], [5, [], 3]);
  });

  test("two broken messages do not make a whole one", async () => {
    const { rows, poison } = await make(['{"n":1,', '"s":"x"}', "[", '{"n":2}', "]"]);
    assert.deepEqual(rows, ['{"n":2}']);
    assert.deepEqual(poison.map(({ at }) => at), [0, 1, 2, 4]);
  });

  test("what does not fit is poison, with its own error; what is around it are rows", async () => {
    const { rows, poison } = await make(['{"n":1}', '{"n":300}', '{"x":1}', "nonsense", '{"n":2}']);
    assert.deepEqual(rows, ['{"n":1}', '{"n":2}']);
    assert.deepEqual(poison.map(({ at, error }) => [at, error.slice(0, 24)]), [
      [1, "n: 300 does not fit UInt"],
      [2, "x: no column of flights,"],
      [3, "not JSON: nonsense"],
    ]);
  });

  test("of an array the bad row alone, with its bytes and its place", async () => {
    const { rows, poison } = await make(['[{"n":1},{"n":300},{"n":3}]']);
    assert.deepEqual(rows, ['{"n":1}', '{"n":3}']);
    assert.deepEqual(poison.map(({ index, text }) => [index, text]), [[1, '{"n":300}']]);
  });

  test("of lines with one that is no JSON, the others; the letter has all of it", async () => {
    const body = '{"n":1}\n{broken\n{"n":2}\n';
    const { rows, poison } = await make([body, '{"n":3}']);
    assert.deepEqual(rows, ['{"n":1}', '{"n":2}', '{"n":3}']);
    assert.equal(poison.length, 1);
    assert.equal(poison[0]?.text, body);
    assert.match(poison[0]!.error, /^row 2: not JSON.*\(2 other rows of it were taken\)$/);
  });

  test("stop: the messages before the poison, and none after it", async () => {
    const stops = await make(['{"n":1}', "[]", '{"n":300}', '{"n":4}', "x"], { stops: true });
    assert.deepEqual(stops.rows, ['{"n":1}']);
    assert.deepEqual([stops.used, stops.empty], [2, 1]);
    assert.deepEqual(stops.poison.map(({ at }) => at), [2]);
    const first = await make(['[{"n":1},{"n":300}]', '{"n":4}'], { stops: true });
    assert.deepEqual([first.rows, first.used], [[], 0]);
  });

  test("a table that is missing waits, whatever the messages are", async () => {
    const reader = readerOf({ flights: "missing" });
    for (const bodies of [['{"n":1}'], ["broken", "{"]]) {
      const made = await makeRows(bodies.map((body) => message(body)), {
        reader,
        table: "flights",
        meta: [],
        stops: false,
      });
      assert.deepEqual(made, { kind: "wait", why: "there is no table flights" });
    }
  });

  test("a Content-Encoding is undone; one that is unknown or a lie is poison", async () => {
    const { rows, poison } = await make([
      message(gzipSync('{"n":1}\n{"n":2}'), { encoding: "gzip" }),
      message("{}", { encoding: "gzip" }),
      message('{"n":3}', { encoding: "rot13" }),
      message('{"n":4}', { encoding: "identity" }),
    ]);
    assert.deepEqual(rows.map((row) => JSON.parse(row).n), [1, 2, 4]);
    assert.deepEqual(poison.map(({ at, error }) => [at, error]), [
      [1, "the body is no gzip"],
      [2, "Content-Encoding: expected one of gzip, deflate, br, zstd, got rot13"],
    ]);
  });
});

describe("what is known of a message", () => {
  const meta = [{ name: "_offset", column: "_offset" }, { name: "_topic", column: "topic" }];

  test("stands in front of each of its rows, where the table has a column for it", async () => {
    offset = 100;
    const bodies = ['{"n":1}', '[{"n":2},{"n":3}]', ' {"n":4}\n{"n":5}', "{}", '[{"n":6}]'];
    const { rows } = await make(bodies, { meta });
    assert.deepEqual(rows.map((row) => JSON.parse(row)), [
      { _offset: 100, n: 1 },
      { _offset: 101, n: 2 },
      { _offset: 101, n: 3 },
      { _offset: 102, n: 4 },
      { _offset: 102, n: 5 },
      { _offset: 103 },
      { _offset: 104, n: 6 },
    ]);
  });

  test("a row that has such a key keeps its own, and every digit", async () => {
    const { rows } = await make(['{"n":1,"_offset":18446744073709551615}'], { meta });
    assert.equal(rows.length, 1);
    assert.match(rows[0]!, /"_offset":18446744073709551615/);
    assert.equal(rows[0]!.match(/_offset/g)?.length, 1);
  });

  test("is no excuse for a bad row, nor the fault of a good one", async () => {
    offset = 0;
    const { rows, poison } = await make(['{"n":1}', '{"n":300}', '[{"n":2},{"n":301}]'], { meta });
    assert.deepEqual(rows.map((row) => JSON.parse(row)), [
      { _offset: 0, n: 1 },
      { _offset: 2, n: 2 },
    ]);
    assert.deepEqual(poison.map(({ text }) => text), ['{"n":300}', '{"n":301}']);
  });

  test("is in no dead letter, nor in what is said of one", async () => {
    const bodies = ['{"n":1} oops', '{"n":', '{"n":1}\noops\n{"n":2}', '{"n":300}', '{"n":1,}'];
    const { rows, poison } = await make(bodies, { meta });
    const plain = await make(bodies);
    assert.deepEqual(poison, plain.poison);
    assert.deepEqual(
      rows.map((row) => JSON.parse(row).n),
      plain.rows.map((row) => JSON.parse(row).n),
    );
    assert.deepEqual(rows.map((row) => row.match(/"_offset"/g)?.length), rows.map(() => 1));
  });

  test("that its column cannot hold is told", async () => {
    const { rows, poison } = await make([message('{"n":1}', { meta: () => "no number" })], {
      meta,
    });
    assert.deepEqual(rows, []);
    assert.deepEqual(poison.map(({ text }) => text), ['{"n":1}']);
    assert.match(poison[0]!.error, /^_offset: "no number" does not fit UInt64/);
  });

  test("becomes properties of events", async () => {
    offset = 7;
    const { rows } = await make([
      '{"eventType":"a"}',
      '{"eventType":"b","properties":{"x":18446744073709551615}}',
      '{"eventType":"c","properties":{"_offset":"mine","nested":{"properties":{}}}}',
      '[{"eventType":"d"},{"eventType":"properties","properties":{}}]',
    ], { table: null, meta: [...meta, { name: "_headers", column: "h" }] });
    const found = rows.map((row) => JSON.parse(row)).map(({ eventType, properties }) => ({
      eventType,
      properties,
    }));
    const more = { topic: "t", h: '{"a":"1"}' };
    assert.deepEqual(found, [
      { eventType: "a", properties: { _offset: "7", ...more } },
      { eventType: "b", properties: { _offset: "8", ...more, x: 18446744073709551615 } },
      { eventType: "c", properties: { ...more, _offset: "mine", nested: { properties: {} } } },
      { eventType: "d", properties: { _offset: "10", ...more } },
      { eventType: "properties", properties: { _offset: "10", ...more } },
    ]);
    assert.match(rows[1]!, /"x":18446744073709551615/);
  });
});

test("whatever comes: each good row once and in order, each bad one a letter, and nothing else", async () => {
  const row = fc.record({ n: fc.nat(400) }).map(({ n }) => ({ text: `{"n":${n}}`, n }));
  const body = fc.oneof(
    row.map(({ text, n }) => ({ text, rows: [n], whole: false })),
    fc.array(row, { minLength: 1, maxLength: 4 }).map((all) => ({
      text: `[${all.map(({ text }) => text).join(",")}]`,
      rows: all.map(({ n }) => n),
      whole: false,
    })),
    fc.constantFrom("{", "x", "[1]", '{"n":').map((text) => ({ text, rows: [], whole: true })),
    fc.constantFrom("", "[]", "null").map((text) => ({ text, rows: [], whole: false })),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(body, { maxLength: 12 }), fc.boolean(), async (bodies, withMeta) => {
      const meta = withMeta ? [{ name: "_offset", column: "_offset" }] : [];
      const { rows, poison } = await make(bodies.map(({ text }) => text), { meta });
      const numbers = bodies.flatMap(({ rows }) => rows);
      assert.deepEqual(rows.map((row) => JSON.parse(row).n), numbers.filter((n) => n < 256));
      const bad = numbers.filter((n) => n >= 256).length +
        bodies.filter(({ whole }) => whole).length;
      assert.equal(poison.length, bad);
    }),
    { numRuns: rounds(100) },
  );
});

test("pieces: as much as can be read at once, of one table, in order", () => {
  const large = new Uint8Array(PIECE_BYTES);
  const all = [
    message("{}"),
    message("{}"),
    message("{}", { table: "a" }),
    message("{}", { table: "a" }),
    message(large, { table: "a" }),
    message("{}", { table: "a" }),
  ];
  const pieces = [...piecesOf(all)];
  assert.deepEqual(pieces.map(({ length }) => length), [2, 2, 1, 1]);
  assert.deepEqual(pieces.flat(), all);
});

test("messages that go together are read in one go, with what stands between them", async () => {
  let most = 0;
  const reader: MessageReader = {
    ...readerOf(),
    read: (_, bytes) => {
      most = Math.max(most, bytes.length);
      return Promise.resolve({ kind: "wait", why: "" });
    },
  };
  const body = `"${"x".repeat(1022)}"`;
  const all = Array.from({ length: 512 }, () => message(body));
  for (const piece of piecesOf(all)) {
    await makeRows(piece, { reader, table: "flights", meta: [], stops: false });
  }
  assert.ok(most > PIECE_BYTES - 2048 && most <= PIECE_BYTES, `${most} bytes`);
});

test("what is empty, and what only looks like it", () => {
  const empty = (text: string) => isEmpty(new TextEncoder().encode(text));
  for (const text of ["", " \n\t", "null", " null\n", "[]", "[ \n ]", "\x1e[]\n"]) {
    assert.equal(empty(text), true, JSON.stringify(text));
  }
  for (const text of ["nul", "nullx", "[", "[0]", "{}", "[]x", "null null", '""', "0"]) {
    assert.equal(empty(text), false, JSON.stringify(text));
  }
});
