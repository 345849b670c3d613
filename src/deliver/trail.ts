/**
 * What is noted of a batch whose INSERTs are under way, and the plan that follows from it. Lines of JSON: the
 * first says how the batch began, each other one is something that happened to its plan. An INSERT that has
 * no line yet may or may not be stored; the plan comes to the same one again, under the same token.
 */

import type { DeadRow } from "../contracts.ts";
import { after, type Event, type Plan, startPlan, unstored } from "./isolate.ts";

/** Of `isolate.ts`: another plan would cut the same batch elsewhere. To be counted up when it changes. */
const PLAN = 1;

/** A batch is sent for the first time. @param cap rows of one INSERT at most. */
export function first(rows: number, cap: number): string {
  return JSON.stringify({ plan: PLAN, rows, cap });
}

/** Something happened. What is said of many rows is said once: a line is short. */
export function append(event: Event): string {
  if (event.is === "apart") {
    const { is, groups } = event;
    return JSON.stringify({
      is,
      groups: groups.map((n) => String.fromCharCode(FIRST + n)).join(""),
    });
  }
  if (event.is === "sieve" && event.good !== null) {
    return JSON.stringify({ is: event.is, runs: runsOf(event.good) });
  }
  if (event.is !== "unfit" && event.is !== "view" || event.each === undefined) {
    return JSON.stringify(event);
  }
  const { is, bad, said, each } = event;
  const message = bad.length === 1 ? each[0]! : `${OF_ONE} ${each[0]}`;
  return JSON.stringify({ is, runs: runsOf(bad), said: { ...said, message } });
}

/** A character for each row says which group it is in. */
const FIRST = 0x100;

const OF_ONE = "this row does not fit either; of one of the batch was said:";

/** Nothing of it is stored: it begins anew. */
export function restart(): string {
  return JSON.stringify({ is: "restart" });
}

/** How far a batch of so many rows has come; null where the lines do not tell, or speak of other rows. */
export function restored(
  lines: readonly string[],
  rows: number,
): { readonly plan: Plan; readonly cap: number } | null {
  try {
    const begun = JSON.parse(lines[0] ?? "null");
    if (begun?.plan !== PLAN || begun.rows !== rows || !Number.isSafeInteger(begun.cap)) {
      return null;
    }
    const cap: number = begun.cap;
    let plan = startPlan(rows, cap);
    for (const line of lines.slice(1)) {
      const said = JSON.parse(line);
      if (said.is === "restart") plan = startPlan(rows, cap);
      else plan = after(plan, eventOf(said));
    }
    return { plan, cap };
  } catch {
    return null;
  }
}

// deno-lint-ignore no-explicit-any
function eventOf({ runs, ...said }: any): Event {
  if (said.is === "apart") {
    const text: string = said.groups;
    return {
      is: "apart",
      groups: Array.from({ length: text.length }, (_, at) => text.charCodeAt(at) - FIRST),
    };
  }
  if (runs === undefined) return said;
  return said.is === "sieve" ? { ...said, good: rowsOf(runs) } : { ...said, bad: rowsOf(runs) };
}

/** As `unstored`, of a batch that an earlier process left with this trail. */
export function leftBehind(
  lines: readonly string[],
  rows: number,
  message: string,
): readonly DeadRow[] {
  const plan = restored(lines, rows)?.plan ?? startPlan(rows);
  return unstored(plan, lines.length > 0, message);
}

/** Ascending numbers as pairs: the first of a stretch, and how many there are. */
function runsOf(numbers: readonly number[]): number[] {
  const runs: number[] = [];
  for (let at = 0; at < numbers.length;) {
    const from = at;
    while (++at < numbers.length && numbers[at] === numbers[at - 1]! + 1);
    runs.push(numbers[from]!, at - from);
  }
  return runs;
}

function rowsOf(runs: readonly number[]): number[] {
  const numbers: number[] = [];
  for (let at = 0; at < runs.length; at += 2) {
    for (let n = 0; n < runs[at + 1]!; n++) numbers.push(runs[at]! + n);
  }
  return numbers;
}
