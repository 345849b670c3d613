/**
 * A batch's memory is freed by hand, so here is who reads it: a sink that keeps what it was handed, by
 * reference, for as long as a client may have it before it; to the end where an attempt failed. Beneath
 * it is a disk that fails, hangs and loses files, above it are settings that change and requests whose
 * bytes are only lent. The seed is printed; to repeat a run set SHISHI_SEED, and SHISHI_PATH to the path
 * that fast-check names. SHISHI_RUNS: how many, instead of 80.
 */

import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import fc from "fast-check";
import { rounds } from "../kit/rounds.ts";
import { type Command, command, config, ending, Run } from "./freed_model.ts";

const seed = Number(process.env.SHISHI_SEED ?? Date.now() % 2 ** 31);
const path = process.env.SHISHI_PATH;
const RUNS = Number(process.env.SHISHI_RUNS ?? rounds(80));

test("what may still be read stays as it is, and what arrives is what was sent", {
  timeout: 60_000,
}, async () => {
  console.log(`freed model: seed ${seed}, ${RUNS} runs`);
  const seen = { rows: 0, attempts: 0, arrived: 0, lost: 0, freed: 0 };
  const property = fc.asyncProperty(
    config,
    fc.array(command, { minLength: 1, maxLength: 60, size: "max" }),
    ending,
    async (config, commands: readonly Command[], end) => {
      const run = await Run.start(config);
      for (const each of commands) await run.obey(each);
      await (end === "finish" ? run.finish() : run.abandon());
      seen.rows += run.rows.length;
      seen.attempts += run.kit.sink.attempts.length;
      seen.arrived += run.arrived.size;
      seen.lost += run.kit.ledger.totals().lost;
      seen.freed += run.freed;
    },
  );
  try {
    await fc.assert(property, { numRuns: RUNS, seed, ...(path === undefined ? {} : { path }) });
  } catch (problem) {
    console.log(`freed model: failed with seed ${seed}`);
    throw problem;
  }
  console.log(`freed model: ${JSON.stringify(seen)}`);
  // A model that takes nothing, or in which nothing is freed, proves nothing.
  if (path === undefined) {
    assert.ok(seen.arrived > RUNS * 5 && seen.freed > RUNS / 4 && seen.attempts > RUNS);
  }
});
