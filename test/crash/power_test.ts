/**
 * The power of the whole machine fails, ten times in one life: the short form of `npm run soak -- --power`.
 * `POWER_SEED` in the environment repeats the chances of a run; the machine decides what they meet.
 * Runs once: the collector is the binary.
 */
import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import { seeded } from "../kit/faulty_bytes.ts";
import { say } from "../system/books.ts";
import { crashBinary } from "./binary.ts";
import { type Cut, cutAt, live, positionsOf } from "./power_cut.ts";

const CUTS = 10;
const LOAD_MS = 1_500;

test(
  `the power fails ${CUTS} times: what was acknowledged is there, once, and keys and messages are known`,
  {
    timeout: 170_000,
  },
  async () => {
    const seed = Number(process.env.POWER_SEED ?? Date.now() % 2 ** 31);
    const random = seeded(seed);
    const options = { system: "ext4", binary: crashBinary(), clients: 8, loadMs: LOAD_MS, random };
    const life = await live(options);
    const cuts: Cut[] = [];
    try {
      // The last one has all that was acknowledged.
      for (const position of [...positionsOf(life, CUTS - 1, random), life.to]) {
        cuts.push(await cutAt(life, position, seeded(seed + position)));
      }
    } catch (problem) {
      console.error(`power cuts: failed with POWER_SEED=${seed}`);
      throw problem;
    } finally {
      life.log.close();
      life.remove();
    }
    const sum = (of: (cut: Cut) => number) => cuts.reduce((total, cut) => total + of(cut), 0);
    const unsafe = sum(({ leftover }) => leftover.unsafe);
    say("power cuts", {
      ...{ seed, records: life.to - life.from, requests: life.writes.length, unsafe },
      acknowledged: cuts.at(-1)!.acknowledged,
      duplicates: sum(({ duplicates }) => duplicates),
      repeated: sum(({ repeated }) => repeated),
    });
    // A disk that is always safe, or never written to, proves nothing.
    assert.ok(sum(({ repeated }) => repeated) > 0, "messages came again, and were known");
    assert.ok(unsafe > 0 && cuts.at(-1)!.acknowledged > 100);
  },
);
