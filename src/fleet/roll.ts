/**
 * `shishi stop --batch N`: a few collectors at a time, each by its own name, the next when these have
 * stopped. Whatever goes wrong with one of them ends the roll, so that a mistake costs one batch and
 * never the fleet; who was not told to stop is named.
 */

import type { Answer } from "../remote/answer.ts";
import type { Wire } from "../remote/wire.ts";
import { tellTroubles } from "./conclude.ts";
import { showDrains } from "./drains.ts";
import { ask, collectors, seconds } from "./fleet.ts";
import type { RemoteIo } from "./remote.ts";

export interface Roll {
  /** Collectors at a time. */
  readonly size: number;
  /** Between the end of one batch and the beginning of the next. */
  readonly pauseMs: number;
}

const MAX_NAMED = 1_000;

/** Names in the order of `found`, so many at a time; namesakes cannot be told apart and stop together. */
export function batchesOf(found: readonly Answer[], size: number): readonly string[][] {
  const names = [...new Set(found.map(({ group, id }) => `${group}.${id}`))];
  const batches: string[][] = [];
  for (let at = 0; at < names.length; at += size) batches.push(names.slice(at, at + size));
  return batches;
}

/** @param found what answered to `status`. @returns the exit code. */
export async function rollingStop(
  wire: Wire,
  found: readonly Answer[],
  roll: Roll,
  io: RemoteIo,
): Promise<number> {
  const batches = batchesOf(found, roll.size);
  let stopped = 0;
  for (const [at, batch] of batches.entries()) {
    if (at > 0 && roll.pauseMs > 0) {
      if (!io.json) io.out(`waiting ${seconds(roll.pauseMs)} before the next batch`);
      await pause(roll.pauseMs, wire, io);
    }
    if (!io.json) io.out(`batch ${at + 1} of ${batches.length}: ${batch.join(", ")}`);
    const drains = io.json ? null : showDrains(wire, "stop", io);
    const told: RemoteIo = drains === null
      ? io
      : { ...io, err: (line) => drains.above(() => io.err(line)) };
    const outcomes = await Promise.all(
      batch.map((name) => ask(wire, "stop", name, told, (...heard) => drains?.heard(...heard))),
    );
    drains?.end();
    let well = true;
    for (const outcome of outcomes) {
      const { done, troubled } = tellTroubles(outcome, drains, io);
      stopped += done;
      // A collector that lost rows has stopped, and still the next ones may do better.
      if (troubled || outcome.answers.some(({ ledger }) => ledger.lost > 0)) well = false;
    }
    if (!well) {
      const left = batches.slice(at + 1).flat();
      io.err(
        `the roll ends at batch ${at + 1} of ${batches.length}; ` +
          (left.length === 0 ? "it was the last" : `not told to stop: ${list(left)}`),
      );
      if (!io.json) io.out(`${stopped} of ${found.length} stopped`);
      return 1;
    }
  }
  if (!io.json) io.out(`${stopped} of ${found.length} stopped`);
  return 0;
}

/** What a roll over these would do, one line a batch. */
export function rollPlan(found: readonly Answer[], roll: Roll): string[] {
  const batches = batchesOf(found, roll.size);
  return batches.map((batch, at) =>
    `batch ${at + 1} of ${batches.length}: ${collectors(batch.length)}: ${batch.join(", ")}`
  );
}

function list(names: readonly string[]): string {
  const more = names.length - MAX_NAMED;
  return names.slice(0, MAX_NAMED).join(", ") + (more > 0 ? ` and ${more} more` : "");
}

/** Ends early when the connection does: nothing can be told to stop after that. */
function pause(ms: number, wire: Wire, io: RemoteIo): Promise<void> {
  return new Promise((resolve) => {
    const cancel = io.clock.after(ms, resolve);
    void wire.closed.then(() => {
      cancel();
      resolve();
    });
  });
}
