/** Bodies that come in pieces, cut anywhere, plain or packed: the same rows as at once. */

import assert from "node:assert/strict";
import { test } from "node:test";
import zlib from "node:zlib";
import fc from "fast-check";
import { rounds } from "../kit/rounds.ts";
import { appOn, bytesOf, post, Script } from "./kit.ts";

const event = (type: string) => ({
  eventType: type,
  userId: "ü",
  timestamp: "2024-01-01T00:00:00Z",
});
const ROWS = ["a", "😀", "c"].map(event);
const LINES = ROWS.map((row) => JSON.stringify(row));
const PRETTY = ROWS.map((row) => JSON.stringify(row, null, 2));

const FORMS: readonly (readonly [string, string])[] = [
  ["lines", LINES.join("\n")],
  ["lines with CRLF and a byte order mark", `\ufeff${LINES.join("\r\n")}\r\n`],
  ["lines that end in commas", LINES.join(",\n") + ",\n"],
  ["objects without anything between", LINES.join("")],
  ["objects over several lines", PRETTY.join("\n")],
  ["an array", JSON.stringify(ROWS, null, 2)],
  ["arrays one a line", LINES.map((line) => `[${line}]\n`).join("")],
  ["an array among objects", `${LINES[0]}[${LINES[1]}]\n${LINES[2]}`],
  ["records", LINES.map((line) => `\x1e${line}\n`).join("")],
];
const PACKED = {
  none: (bytes: Uint8Array) => bytes,
  gzip: (bytes: Uint8Array) => zlib.gzipSync(bytes),
  zstd: (bytes: Uint8Array) => zlib.zstdCompressSync(bytes),
};

function inPieces(bytes: Uint8Array, cuts: readonly number[]): ReadableStream<Uint8Array> {
  const places = [0, ...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length].sort((a, b) =>
    a - b
  );
  return new ReadableStream({
    start(controller) {
      for (let at = 1; at < places.length; at++) {
        controller.enqueue(bytes.slice(places[at - 1], places[at]));
      }
      controller.close();
    },
  });
}

for (const [name, body] of FORMS) {
  test(`in pieces: ${name}`, async () => {
    const cuts = fc.array(fc.nat(), { maxLength: 6 });
    const packings = fc.constantFrom<keyof typeof PACKED>("none", "gzip", "zstd");
    await fc.assert(
      fc.asyncProperty(cuts, packings, async (cuts, packing) => {
        const script = new Script();
        const sent = PACKED[packing](bytesOf(body));
        const headers: Record<string, string> = packing === "none"
          ? {}
          : { "content-encoding": packing };
        const answer = await post(appOn(script), "/events", inPieces(sent, cuts), headers);
        assert.deepEqual(answer.body, { accepted: 3, rejected: 0, ack: "memory", errors: [] });
        const lines = new TextDecoder().decode(script.chunks[0]!.body).trimEnd().split("\n");
        const types = lines.map((line) => JSON.parse(line).eventType);
        assert.deepEqual(types, ROWS.map(({ eventType }) => eventType));
      }),
      { numRuns: rounds(20) },
    );
  });
}
