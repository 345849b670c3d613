/**
 * Runs what is to be looked at: at the same time, a bounded number of them, each within a time limit.
 * What is told stands in the order of the list, whoever was first.
 */

import type { Clock } from "../../contracts.ts";
import { about, type Finding, type Look } from "./finding.ts";

/** At once; each has at most a few requests under way. */
const AT_ONCE = 16;

/** A look, and the words for it where it says nothing in time. */
export interface Named {
  readonly what: string;
  readonly look: Look;
}

/**
 * Calls `tell` once for each, in order.
 * @param withinMs of one look; its own limits are shorter, so this is for what hangs all the same (a
 * folder on a network that is away).
 */
export async function runLooks(
  looks: readonly Named[],
  withinMs: number,
  clock: Clock,
  tell: (findings: readonly Finding[]) => void,
): Promise<void> {
  const results = looks.map(() => Promise.withResolvers<readonly Finding[]>());
  let next = 0;
  const work = async () => {
    for (let at = next++; at < looks.length; at = next++) {
      results[at]!.resolve(await inTime(looks[at]!, withinMs, clock));
    }
  };
  const workers = Array.from({ length: Math.min(AT_ONCE, looks.length) }, work);
  for (const { promise } of results) tell(await promise);
  await Promise.all(workers);
}

async function inTime(
  { what, look }: Named,
  withinMs: number,
  clock: Clock,
): Promise<readonly Finding[]> {
  let cancel = () => {};
  const late = new Promise<readonly Finding[]>((resolve) => {
    cancel = clock.after(withinMs, () => {
      resolve([about(what).wrong(`no answer within ${withinMs / 1000} s`)]);
    });
  });
  const looked = Promise.resolve().then(look).catch((error) => [about(what).wrong(String(error))]);
  const found = await Promise.race([looked, late]);
  cancel();
  return found;
}
