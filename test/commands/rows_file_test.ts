/** Files of rows in batches: cut between rows alone, and always in the same places. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import zlib from "node:zlib";
import fc from "fast-check";
import {
  BATCH_ROWS,
  formatOf,
  halves,
  type RowsBatch,
  RowsFile,
  type RowsFormat,
} from "../../src/commands/rows_file.ts";
import { removeDir, tempDir } from "../kit/temp.ts";

const dir = tempDir("rows-file");
after(() => removeDir(dir));

async function read(content: Uint8Array, format: RowsFormat, from = 0) {
  const path = join(dir, "file");
  writeFileSync(path, content);
  const file = new RowsFile(path, format);
  const batches: RowsBatch[] = [];
  for await (const batch of file.batches(from)) batches.push(batch);
  return { batches, header: Buffer.from(file.header).toString() };
}

const text = ({ body }: RowsBatch) => Buffer.from(body).toString();

test("names tell the format", () => {
  assert.deepEqual(
    ["a.csv", "b.CSV.gz", "c.tsv.zst", "d.tab", "e.ndjson", "f.json.gz", "g"].map(formatOf),
    ["csv", "csv", "tsv", "tsv", "ndjson", "ndjson", "ndjson"],
  );
});

/** Each row once, with how many lines it has. */
const field = fc.oneof(
  fc.constantFrom("1", "", "a b", 'in "quotes"', "ü"),
  fc.constantFrom(
    '"x"',
    '""',
    '"a,b"',
    '"two\nlines"',
    '"two\r\nlines"',
    '"say ""hi"""',
    '"""\n"""',
  ),
);
const csvRow = fc.tuple(field, field).map(([a, b]) => `x${a.startsWith('"') ? "" : a},${b}`);

test("CSV is cut where records end, packed or not, and the same from any batch on", async () => {
  const ends = fc.constantFrom("\n", "\r\n");
  const packs = fc.constantFrom<(bytes: Uint8Array) => Uint8Array>(
    (bytes) => bytes,
    (bytes) => zlib.gzipSync(bytes),
    (bytes) =>
      Buffer.concat([
        zlib.zstdCompressSync(bytes.subarray(0, 99)),
        zlib.zstdCompressSync(bytes.subarray(99)),
      ]),
  );
  await fc.assert(
    fc.asyncProperty(
      fc.array(csvRow, { minLength: 1, maxLength: 9 }),
      ends,
      fc.boolean(),
      packs,
      async (rows, end, mark, pack) => {
        // More than one batch of them.
        const times = Math.ceil(BATCH_ROWS * 2.5 / rows.length);
        const all = Array.from({ length: times }, () => rows.map((row) => row + end).join("")).join(
          "",
        );
        const header = `${mark ? "\ufeff" : ""}"a\nb",c${end}`;
        const content = Buffer.from(header + all);
        const { batches, header: found } = await read(pack(content), "csv");
        assert.equal(found, header);
        assert.equal(batches.map(text).join(""), all);
        assert.deepEqual(batches.map(({ rows }) => rows).slice(0, -1), [BATCH_ROWS, BATCH_ROWS]);
        let line = 3;
        for (const batch of batches) {
          assert.equal(batch.line, line);
          line += text(batch).split("\n").length - 1;
          assert.equal(batch.endLine, line);
          assert.ok(
            all.startsWith(text(batch), batch.offset - Buffer.byteLength(header)) || /ü/.test(all),
          );
        }
        const { batches: later } = await read(pack(content), "csv", batches[1]!.offset);
        assert.deepEqual(later, batches.slice(1));
      },
    ),
    { numRuns: 12 },
  );
});

test("a batch goes in two between rows, and again down to single ones, which do not", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(csvRow, { minLength: 1, maxLength: 12 }), async (rows) => {
      const { batches: [whole] } = await read(Buffer.from(`a,c\n${rows.join("\n")}\n`), "csv");
      const single: RowsBatch[] = [];
      const cut = (batch: RowsBatch) => {
        const pieces = halves(batch, "csv");
        if (pieces === null) return void single.push(batch);
        assert.equal(pieces.length, 2);
        assert.equal(pieces[0]!.rows + pieces[1]!.rows, batch.rows);
        assert.equal(pieces[0]!.end, pieces[1]!.offset);
        assert.equal(pieces[0]!.endLine, pieces[1]!.line);
        assert.equal(pieces[1]!.end, batch.end);
        assert.equal(pieces[1]!.endLine, batch.endLine);
        pieces.forEach(cut);
      };
      cut(whole!);
      assert.deepEqual(single.map(text), rows.map((row) => `${row}\n`));
      let line = 2;
      for (const batch of single) {
        assert.equal(batch.line, line);
        line += text(batch).split("\n").length - 1;
      }
    }),
  );
});

test("NDJSON: empty lines are no rows, the last line needs no end", async () => {
  const { batches } = await read(Buffer.from('{"a":1}\n\n  \r\n{"a":2}'), "ndjson");
  assert.deepEqual(batches.map(({ rows, line, endLine }) => [rows, line, endLine]), [[2, 1, 5]]);
  assert.deepEqual((await read(Buffer.from("\n\n"), "ndjson")).batches, []);
});

test("a row that does not end is told by its line, and never held whole", async () => {
  const content = Buffer.from(`a,b\n1,2\n3,"${"x\n".repeat(5 * 1024 * 1024)}`);
  await assert.rejects(read(content, "csv"), /the row at line 3 is longer than 8388608 bytes/);
});
