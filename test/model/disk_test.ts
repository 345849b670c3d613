/**
 * The pump with a disk that fails in every way, against its model, through stops and crashes. The seed
 * is printed; to repeat a run set SHISHI_SEED, and SHISHI_PATH to the path that fast-check names.
 */

import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import fc from "fast-check";
import { seeded } from "../kit/faulty_bytes.ts";
import { command, config } from "./disk_commands.ts";
import { Run } from "./disk_model.ts";
import { finish } from "./disk_promises.ts";

const seed = Number(process.env.SHISHI_SEED ?? Date.now() % 2 ** 31);
const path = process.env.SHISHI_PATH;
const RUNS = Number(process.env.SHISHI_RUNS ?? 500);

/** Ids are made of chance that is not the clock's; here it must be repeatable too. */
function withRepeatableIds<T>(chance: number, work: () => Promise<T>): Promise<T> {
  const real = crypto.getRandomValues;
  const random = seeded(chance);
  crypto.getRandomValues = ((bytes: Uint8Array) => {
    for (let at = 0; at < bytes.length; at++) bytes[at] = Math.floor(random() * 256);
    return bytes;
  }) as typeof real;
  return work().finally(() => crypto.getRandomValues = real);
}

test("whatever happens to the disk, what was acknowledged is kept", {
  timeout: 60_000,
}, async () => {
  console.log(`disk model: seed ${seed}, ${RUNS} runs`);
  const seen = { rows: 0, sent: 0, crashes: 0, lives: 0, failures: 0 };
  const property = fc.asyncProperty(
    config,
    fc.array(command, { minLength: 1, maxLength: 70, size: "max" }),
    (configuration, commands) =>
      withRepeatableIds(configuration.chance, async () => {
        const run = await Run.start(configuration);
        for (const each of commands) await run.obey(each);
        await finish(run);
        seen.sent += run.sent;
        seen.failures += run.failures;
        seen.rows += run.rows.length;
        seen.crashes += run.crashes;
        seen.lives += run.lives;
      }),
  );
  try {
    await fc.assert(property, { numRuns: RUNS, seed, ...(path === undefined ? {} : { path }) });
  } catch (problem) {
    console.log(`disk model: failed with seed ${seed}`);
    throw problem;
  }
  console.log(`disk model: ${JSON.stringify(seen)}`);
  // A model that takes nothing, or to which nothing happens, proves nothing.
  if (path === undefined) {
    assert.ok(seen.rows > RUNS * 10 && seen.sent > RUNS && seen.crashes > RUNS / 4);
  }
});
