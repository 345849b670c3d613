/**
 * The pump with a disk that fails in every way, against its model, through stops and crashes. The seed
 * is printed; to repeat a run set SHISHI_SEED, and SHISHI_PATH to the path that fast-check names.
 */

import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import fc from "fast-check";
import { seeded } from "../kit/faulty_bytes.ts";
import { rounds } from "../kit/rounds.ts";
import { type Command, command, type Config, config } from "./disk_commands.ts";
import { Run } from "./disk_model.ts";
import { finish } from "./disk_promises.ts";

const seed = Number(process.env.SHISHI_SEED ?? Date.now() % 2 ** 31);
const path = process.env.SHISHI_PATH;
const RUNS = Number(process.env.SHISHI_RUNS ?? rounds(200));

const SMALL: Config = {
  ...{ ack: "disk", maxRows: 1, maxBytes: 100, flushIntervalMs: 0, idleIntervalMs: null },
  ...{ backlog: 1000, backlogBytes: 60_000, maxSpoolBytes: 1e6, concurrency: 1 },
  ...{ journalFileBytes: 600, chance: 0 },
};
const TAKE = { do: "take", table: 0, pads: [0], fingerprint: 0, waitMs: null } as const;

/** What this model has found, and chance seldom finds again. */
const FOUND: [Config, Command[]][] = [
  // Killed between the write and its sync; what was found was called a duplicate; then a power cut.
  [SMALL, [
    { do: "crash", how: "process", after: 5, landed: 0 },
    { ...TAKE, keyed: true },
    { do: "crash", how: "power", after: 1, landed: 0 },
    { do: "again", which: 0 },
    { ...TAKE, keyed: false },
    { do: "open" },
  ]],
  // A file that was read, while it was not known yet which keys stand in it, was removed as free.
  [SMALL, [
    { ...TAKE, keyed: true },
    { do: "stop", timeoutMs: 0, with: "stored", releases: [], midway: null, landed: 1 },
    { ...TAKE, pads: [300], keyed: false },
    { do: "stop", timeoutMs: 0, with: null, releases: [3], midway: null, landed: 0 },
    { do: "again", which: 0 },
  ]],
  // A segment whose rows the journal has could not be removed at a start, and stayed for the next one.
  [{ ...SMALL, backlogBytes: 600 }, [
    { ...TAKE, keyed: false },
    { ...TAKE, pads: [0, 0], keyed: false },
    { do: "crash", how: "process", after: 21, landed: 977967403 },
    { do: "poll", partition: 0, count: 1, pads: [0] },
    { do: "advance", ms: 40000 },
    { do: "poll", partition: 0, count: 1, pads: [0] },
    { do: "poll", partition: 0, count: 1, pads: [0] },
    { do: "readOnly" },
    { do: "release", which: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] },
    { ...TAKE, keyed: false },
  ]],
];

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
  timeout: 120_000,
}, async () => {
  console.log(`disk model: seed ${seed}, ${RUNS} runs`);
  const seen = {
    rows: 0,
    sent: 0,
    crashes: 0,
    lives: 0,
    failures: 0,
    repeated: 0,
    duplicates: 0,
    messagesKnown: 0,
    messagesAgain: 0,
  };
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
        seen.repeated += run.repeated;
        seen.duplicates += run.duplicates;
        seen.messagesKnown += run.messagesKnown;
        seen.messagesAgain += run.messagesAgain;
      }),
  );
  try {
    const repeated = path === undefined ? { examples: FOUND } : { path };
    await fc.assert(property, { numRuns: RUNS, seed, ...repeated });
  } catch (problem) {
    console.log(`disk model: failed with seed ${seed}`);
    throw problem;
  }
  console.log(`disk model: ${JSON.stringify(seen)}`);
  // A model that takes nothing, or to which nothing happens, proves nothing.
  if (path === undefined) {
    assert.ok(seen.rows > RUNS * 10 && seen.sent > RUNS && seen.crashes > RUNS / 20);
    assert.ok(seen.messagesKnown > RUNS / 10 && seen.messagesAgain > RUNS / 20);
    assert.ok(seen.duplicates > RUNS / 10);
    // About one in eighteen runs.
    assert.ok(seen.repeated > 0 || RUNS < 200);
  }
});
