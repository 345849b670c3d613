import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { uuid7 } from "../../src/kernel/names.ts";

const VALID = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

describe("uuid7", () => {
  test("is a UUID of version 7 and variant 10", () => {
    for (let i = 0; i < 2000; i++) assert.match(uuid7(Date.now() + i), VALID);
  });

  test("begins with the time (the example of RFC 9562, appendix A.6)", () => {
    assert.ok(uuid7(0x017f22e279b0).startsWith("017f22e2-79b0-7"));
    assert.ok(uuid7(0).startsWith("00000000-0000-7"));
    assert.ok(uuid7(2 ** 48 - 1).startsWith("ffffffff-ffff-7"));
  });

  test("sorts by time, as text", () => {
    const times = [
      0,
      1,
      255,
      256,
      65_535,
      65_536,
      2 ** 32 - 1,
      2 ** 32,
      1_704_067_200_000,
      2 ** 47,
    ];
    const ids = times.map(uuid7);
    assert.deepEqual([...ids].sort(), ids);
  });

  test("never comes twice, also within one millisecond", () => {
    const ids = new Set(Array.from({ length: 20_000 }, () => uuid7(1_704_067_200_000)));
    assert.equal(ids.size, 20_000);
  });
});
