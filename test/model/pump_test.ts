/**
 * The pump against its model, under random commands. The seed is printed; to repeat a run set
 * SHISHI_SEED, and SHISHI_PATH to the path that fast-check names. SHISHI_RUNS: how many, instead of 150.
 * Runs once: time is the test's own, the disk and the server are; test/model/disk_test.ts has the pump on both runtimes.
 */

import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import fc from "fast-check";
import { rounds } from "../kit/rounds.ts";
import { command, config, ending } from "./pump_commands.ts";
import { Run } from "./pump_model.ts";
import { finish } from "./pump_waits.ts";

const seed = Number(process.env.SHISHI_SEED ?? Date.now() % 2 ** 31);
const path = process.env.SHISHI_PATH;
const RUNS = Number(process.env.SHISHI_RUNS ?? rounds(150));

test("whatever happens, the pump keeps its promises", { timeout: 120_000 }, async () => {
  console.log(`pump model: seed ${seed}, ${RUNS} runs`);
  let attempts = 0;
  let taken = 0;
  const property = fc.asyncProperty(
    config,
    fc.array(command, { minLength: 1, maxLength: 90, size: "max" }),
    ending,
    async (configuration, commands, end) => {
      const run = new Run(configuration);
      for (const each of commands) await run.obey(each);
      if (end === "close") await run.obey({ do: "close" });
      if (end === "abandon") {
        await run.obey({ do: "abandon" });
        await run.obey({ do: "answerAll", with: "stored", more: 0 });
        await run.obey({ do: "abandon" });
      }
      attempts += run.sink.attempts.length;
      await finish(run);
      taken += run.rows.length;
    },
  );
  try {
    await fc.assert(property, { numRuns: RUNS, seed, ...(path === undefined ? {} : { path }) });
  } catch (problem) {
    console.log(`pump model: failed with seed ${seed}`);
    throw problem;
  }
  // A model that takes nothing proves nothing.
  if (path === undefined) {
    assert.ok(taken > RUNS * 10 && attempts > RUNS * 5, `${taken}, ${attempts}`);
  }
});
