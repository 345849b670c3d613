/** The steps that batches take, seen through the table that every one of them is looked up in. */

import assert from "node:assert/strict";
import { MOVES, STEPS } from "../../src/batch/batch.ts";

const TABLES: readonly Readonly<Record<string, ReadonlySet<string>>>[] = [STEPS, MOVES];

/** Legal steps that were taken since this module was loaded, as `open → closed`. */
export const seen = new Set<string>();
const illegal: string[] = [];

export const legal: readonly string[] = TABLES.flatMap((table) =>
  Object.entries(table).flatMap(([from, steps]) => [...steps].map((to) => `${from} → ${to}`))
);

for (const table of TABLES) {
  for (const [from, steps] of Object.entries(table)) {
    const has = steps.has.bind(steps);
    Object.assign(steps, {
      has(to: string): boolean {
        const is = has(to);
        if (is) seen.add(`${from} → ${to}`);
        else illegal.push(`${from} → ${to}`);
        return is;
      },
    });
  }
}

/** Fails once a batch was about to take a step that is not in the table, whoever caught the error. */
export function checkSteps(): void {
  assert.deepEqual(illegal, [], "steps that no batch may take");
}
