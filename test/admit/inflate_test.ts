/** Packed bodies: whole or not at all, and never more than allowed. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { test } from "node:test";
import zlib from "node:zlib";
import fc from "fast-check";
import { type Encoding, inflate, MOST_FRAMES, zstdFrames } from "../../src/admit/body.ts";
import { bytesOf } from "./kit.ts";

const LIMIT = 1024 * 1024;
/** Text that does not shrink to nothing, so that it can be cut in many places. */
const TEXT = bytesOf(
  Array.from({ length: 400 }, (_, i) => `{"eventType":"click","n":${(i * 7919) % 1009}}\n`).join(
    "",
  ),
);

const zstdWith = (checksum: boolean) => (bytes: Uint8Array) =>
  zlib.zstdCompressSync(bytes, {
    params: { [zlib.constants.ZSTD_c_checksumFlag]: checksum ? 1 : 0 },
  });
const PACKERS: readonly (readonly [string, Encoding, (bytes: Uint8Array) => Uint8Array])[] = [
  ["gzip", "gzip", (bytes) => zlib.gzipSync(bytes)],
  ["zlib", "deflate", (bytes) => zlib.deflateSync(bytes)],
  ["raw deflate", "deflate", (bytes) => zlib.deflateRawSync(bytes)],
  ["brotli", "br", (bytes) => zlib.brotliCompressSync(bytes)],
  ["zstd", "zstd", zstdWith(false)],
  ["zstd with a checksum", "zstd", zstdWith(true)],
];

for (const [name, encoding, pack] of PACKERS) {
  test(`${name} is unpacked`, async () => {
    for (const bytes of [TEXT, bytesOf(""), bytesOf("a"), new Uint8Array(300_000).fill(97)]) {
      // Small ones are unpacked on the spot, and with a higher limit in the thread pool.
      for (const limit of [LIMIT, 4 * LIMIT]) {
        const inflated = await inflate(pack(bytes), encoding, limit);
        assert.ok(inflated.kind === "inflated", `${inflated.kind} ${bytes.length}`);
        assert.deepEqual(new Uint8Array(inflated.bytes), bytes);
      }
    }
  });

  test(`${name} that is cut short is corrupt, wherever it is cut`, async () => {
    const packed = pack(TEXT);
    for (let end = 0; end < packed.length; end += end > 20 && end < packed.length - 20 ? 37 : 1) {
      const { kind } = await inflate(packed.subarray(0, end), encoding, LIMIT);
      assert.equal(kind, "corrupt", `cut at ${end} of ${packed.length}`);
    }
  });

  test(`${name} that unpacks to more than the limit is large`, async () => {
    const bomb = pack(new Uint8Array(8 * LIMIT));
    for (const limit of [LIMIT, 4 * LIMIT]) {
      assert.equal((await inflate(bomb, encoding, limit)).kind, "large");
    }
    assert.equal((await inflate(pack(TEXT), encoding, TEXT.length - 1)).kind, "large");
    assert.equal((await inflate(pack(TEXT), encoding, TEXT.length)).kind, "inflated");
  });

  test(`what is no ${name} is corrupt`, async () => {
    const { kind } = await inflate(bytesOf('{"eventType":"click"}'), encoding, LIMIT);
    assert.equal(kind, "corrupt");
  });
}

test("several zstd frames are one body, skippable frames are skipped", async () => {
  const skippable = new Uint8Array([0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
  const [first, second] = [
    zlib.zstdCompressSync(bytesOf("one ")),
    zlib.zstdCompressSync(bytesOf("two")),
  ];
  const packed = new Uint8Array([...first, ...skippable, ...second]);
  const inflated = await inflate(packed, "zstd", LIMIT);
  assert.ok(inflated.kind === "inflated");
  assert.deepEqual(inflated.bytes, bytesOf("one two"));
  assert.equal((await inflate(packed, "zstd", 6)).kind, "large");
  for (const end of [first.length + 2, first.length + 9, packed.length - 1]) {
    assert.equal((await inflate(packed.subarray(0, end), "zstd", LIMIT)).kind, "corrupt");
  }
});

test("any bytes are frames or not", () => {
  const magic = [0x28, 0xb5, 0x2f, 0xfd];
  fc.assert(fc.property(fc.uint8Array({ maxLength: 64 }), (tail) => {
    const frames = zstdFrames(new Uint8Array([...magic, ...tail]), 1000);
    assert.ok(frames === null || Array.isArray(frames) && frames.every(({ length }) => length > 4));
  }));
});

test("zstd in a great many frames, empty or skipped, is refused at once", async () => {
  const empty = Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0x20, 0, 1, 0, 0);
  const skipped = Uint8Array.of(0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0);
  for (const frame of [empty, skipped]) {
    // The last one holds the data.
    const times = (count: number) =>
      new Uint8Array(Buffer.concat([...Array(count - 1).fill(frame), zlib.zstdCompressSync(TEXT)]));
    const most = await inflate(times(MOST_FRAMES), "zstd", LIMIT);
    assert.ok(most.kind === "inflated");
    assert.deepEqual(new Uint8Array(most.bytes), TEXT);
    assert.equal((await inflate(times(MOST_FRAMES + 1), "zstd", LIMIT)).kind, "pieces");
  }
});
