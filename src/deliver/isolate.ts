/**
 * Finds the rows of a batch that ClickHouse refuses, with few INSERTs. A pure plan: `step` says what to
 * do, `after` takes what happened and gives the next plan, and the trail (below) brings a start to the same
 * plan again. Each row's fate is decided exactly once.
 *
 * 1. The whole batch. 2. Without the row that the server named: one bad row costs one more INSERT.
 * 3. A second failure, or none named: the sieve, once; all good rows go in one INSERT. Some of the bad
 * ones are sent alone, for their own message and as a check of the sieve; if one of those is stored
 * after all, the sieve's word counts for nothing. 4. Without a sieve, or where it does not see what is
 * wrong: runs.
 *
 * A run walks along some rows, a window of them at a time, without knowing how many are bad. Where the
 * server names the bad row, the rows before it are known to parse and wait in a pool that goes in one
 * INSERT at the end; where it does not, the window is halved until one row is left. The window follows
 * the distance between bad rows, so that among many bad rows an INSERT carries few rows, and a batch is
 * never uploaded again for each of them.
 */

import { type DeadRow, OWN_WORD } from "../contracts.ts";

/** What the server said about a row. */
export interface Refusal {
  readonly code: number;
  readonly message: string;
}

/** A list that grows at the front, so that a plan shares it with the plan before it. */
export type List<T> = { readonly head: T; readonly tail: List<T> } | null;

export interface Plan {
  /** What is left to insert; the first run is the one under way. */
  readonly runs: readonly Run[];
  readonly dead: List<DeadRow>;
  /** `open`: not asked yet. `asking`: it is the next step. `closed`: asked, or not to be asked. */
  readonly sieve: "open" | "asking" | "closed";
  /** Row refusals so far. */
  readonly failures: number;
  /** Most rows of one INSERT; shrinks when the server says that there are too many at once. */
  readonly cap: number;
  /** An INSERT was stored. */
  readonly passed: boolean;
  /** Rows that were too large by themselves, and go behind all others. */
  readonly putOff: readonly number[];
  /** Rows that are bad by the sieve's word alone, and how the last row before was refused. */
  readonly word: { readonly rows: Uint32Array; readonly said: Refusal } | null;
  /** The last refusal. */
  readonly last: Refusal | null;
  /** By row; rows with different numbers never go in one INSERT. Null: any may go together. */
  readonly groups: readonly number[] | null;
}

export type Step =
  /** Rows are ascending 0-based places in the batch. */
  | { readonly kind: "insert" | "sieve"; readonly rows: Uint32Array }
  | { readonly kind: "done"; readonly dead: readonly DeadRow[] };

/** What happened, for a plan; plain JSON, so that a plan can be made again from what happened to it. */
export type Event =
  | { readonly is: "stored" }
  | { readonly is: "row"; readonly row: number | null; readonly said: Refusal }
  /** `good`: as `afterSieve` takes it. */
  | { readonly is: "sieve"; readonly good: readonly number[] | null }
  /** The piece is stored, but for some rows of it. `each`: what is said of these, one by one. */
  | {
    readonly is: "view";
    readonly bad: readonly number[];
    readonly said: Refusal;
    readonly each?: Words;
  }
  /** Rows that are not sent at all. */
  | {
    readonly is: "unfit";
    readonly bad: readonly number[];
    readonly said: Refusal;
    readonly each?: Words;
  }
  /** Before anything was sent. `groups`: as of `Plan`. */
  | { readonly is: "apart"; readonly groups: readonly number[] }
  | { readonly is: "split" }
  | { readonly is: "put off" }
  | { readonly is: "no sieve" };

/** Messages, one for each of some rows. */
export type Words = readonly string[];

/** As many bad rows are sent alone after a sieve. */
export const EXPLAINED = 16;

/** The plan after an event. */
export function after(plan: Plan, event: Event): Plan {
  switch (event.is) {
    case "stored":
      return afterStored(plan);
    case "row":
      return afterRow(plan, event.row, event.said);
    case "sieve":
      return afterSieve(plan, event.good);
    case "view":
      return afterView(plan, event);
    case "unfit":
      return afterUnfit(plan, event);
    case "apart": {
      const apart = { ...plan, groups: event.groups };
      return { ...apart, runs: apartRuns(apart, undecided(plan), plan.cap) };
    }
    case "split":
      return afterSplit(plan);
    case "put off":
      return afterPuttingOff(plan);
    case "no sieve":
      return withoutSieve(plan);
  }
}

/** @param cap rows of one INSERT at most. */
export function startPlan(rows: number, cap = rows): Plan {
  const all = new Uint32Array(rows);
  for (let at = 0; at < rows; at++) all[at] = at;
  return {
    runs: rows === 0 ? [] : [startRun(all, rows)],
    dead: null,
    sieve: "open",
    failures: 0,
    cap: Math.max(1, Math.min(cap, rows)),
    passed: false,
    putOff: [],
    word: null,
    last: null,
    groups: null,
  };
}

/** Some rows as runs, each of rows that may go together. @param window how many are tried at once. */
function apartRuns({ groups }: Plan, rows: Uint32Array, window = Infinity): Run[] {
  if (rows.length === 0) return [];
  const parts = groups === null ? [rows] : [...Map.groupBy(rows, (row) => groups[row]).values()];
  return parts.map((part) => startRun(Uint32Array.from(part), Math.min(window, part.length)));
}

/** The same plan, which never asks the sieve: it would hide which rows have what problem. */
function withoutSieve(plan: Plan): Plan {
  return plan.sieve === "asking" || plan.sieve === "open" ? { ...plan, sieve: "closed" } : plan;
}

export function step(plan: Plan): Step {
  if (plan.sieve === "asking") return { kind: "sieve", rows: undecided(plan) };
  const run = plan.runs[0];
  if (run !== undefined) return { kind: "insert", rows: currentPiece(run, plan.cap) };
  return { kind: "done", dead: deadOf(plan) };
}

function deadOf(plan: Plan): DeadRow[] {
  const dead: DeadRow[] = [];
  for (let at = plan.dead; at !== null; at = at.tail) dead.push(at.head);
  for (const index of plan.word?.rows ?? []) dead.push(byWord(index, (plan.word as Word).said));
  return dead.sort((a, b) => a.index - b.index);
}

/**
 * What of a batch is not stored for certain, if nothing more of it is sent.
 * @param sent the next INSERT may be stored already. @param message of rows of which nothing else was said.
 */
export function unstored(plan: Plan, sent: boolean, message: string): readonly DeadRow[] {
  const next = step(plan);
  const maybe = new Set(sent && next.kind === "insert" ? next.rows : []);
  const open = [...undecided(plan)].map((index) => ({
    index,
    code: OWN_WORD,
    message: maybe.has(index) ? `${message}; it was sent, and may be in the table` : message,
  }));
  return [...deadOf(plan), ...open].sort((a, b) => a.index - b.index);
}

/** The piece of the last `step` is in the table. */
function afterStored(plan: Plan): Plan {
  const [run, ...later] = plan.runs as readonly [Run, ...Run[]];
  const next = withRun({ ...plan, passed: true }, stored(run, plan.cap), later);
  if (!run.alone || plan.word === null) return next;
  // The sieve called this row bad: its word is no good, so the rest is found out by INSERTs.
  return { ...next, runs: [...next.runs, ...apartRuns(plan, plan.word.rows, 8)], word: null };
}

/** The piece of the last `step` is in the table; a view digested all of it but these rows of it. */
function afterView(plan: Plan, event: Event & { readonly is: "view" }): Plan {
  const next = afterStored(plan);
  return { ...next, dead: withDead(next.dead, event) };
}

/** Some of the rows whose fate is open are not to be sent. */
function afterUnfit(plan: Plan, event: Event & { readonly is: "unfit" }): Plan {
  const isBad = new Set(event.bad);
  const isGood = (row: number) => !isBad.has(row);
  const runs = plan.runs.flatMap((run): Run[] => {
    const rest = restOf(run);
    if (!rest.some((row) => isBad.has(row))) return [run];
    const left = rest.filter(isGood);
    const window = run.alone ? 1 : Math.min(run.window, left.length);
    return left.length === 0 ? [] : [startRun(left, window, run.alone)];
  });
  return {
    ...plan,
    runs,
    putOff: plan.putOff.filter(isGood),
    sieve: plan.sieve === "asking" && runs.length === 0 ? "closed" : plan.sieve,
    dead: withDead(plan.dead, event),
  };
}

function withDead(
  dead: Plan["dead"],
  { bad, said, each }: {
    readonly bad: readonly number[];
    readonly said: Refusal;
    readonly each?: Words;
  },
): Plan["dead"] {
  for (const [at, index] of bad.entries()) {
    dead = { head: { index, code: said.code, message: each?.[at] ?? said.message }, tail: dead };
  }
  return dead;
}

/** The server refused the piece for a row; `row` is the 1-based one in the piece, or null. */
function afterRow(plan: Plan, row: number | null, said: Refusal): Plan {
  const [run, ...later] = plan.runs as readonly [Run, ...Run[]];
  const piece = currentPiece(run, plan.cap);
  const named = row !== null && row >= 1 && row <= piece.length ? row : null;
  const outcome = refused(run, plan.cap, named);
  let dead = plan.dead;
  if (outcome.dead !== null) {
    dead = { head: { index: outcome.dead, code: said.code, message: said.message }, tail: dead };
  }
  const first = plan.failures === 0;
  let next = withRun(
    { ...plan, dead, failures: plan.failures + 1, last: said },
    outcome.run,
    later,
  );
  if (first && named !== null && piece.length === run.rows.length && later.length === 0) {
    const rest = piece.filter((_, at) => at !== named - 1);
    next = { ...next, runs: rest.length === 0 ? [] : [startRun(rest, rest.length)] };
  } else if (plan.sieve === "open" && next.runs.length > 0) {
    next = { ...next, sieve: "asking" };
  }
  return next;
}

/** The sieve answered: places in the asked rows that are good, or null when it cannot tell. */
function afterSieve(plan: Plan, good: readonly number[] | null): Plan {
  const closed: Plan = { ...plan, sieve: "closed" };
  const asked = undecided(plan);
  // Nothing found means that the trouble is none of parsing; what the runs know stays useful.
  if (good === null || good.length === asked.length) return closed;
  const isGood = new Set(good);
  const passed = asked.filter((_, at) => isGood.has(at));
  const bad = asked.filter((_, at) => !isGood.has(at));
  const alone = sample(bad, EXPLAINED);
  const isAlone = new Set(alone);
  const word = bad.filter((row) => !isAlone.has(row));
  const runs = [...apartRuns(plan, passed), startRun(alone, 1, true)];
  return {
    ...closed,
    runs,
    word: word.length > 0 ? { rows: word, said: plan.last as Refusal } : null,
  };
}

/** The server takes fewer rows at once than the piece has. */
function afterSplit(plan: Plan): Plan {
  const { length } = currentPiece(plan.runs[0] as Run, plan.cap);
  return { ...plan, cap: Math.ceil(length / 2) };
}

/** One row alone is too much, and its neighbours may not have been: the others go first, and all at once. */
function afterPuttingOff(plan: Plan): Plan {
  const [run, ...later] = plan.runs as readonly [Run, ...Run[]];
  const row = run.rows[run.from] as number;
  const others = withRun(plan, { ...run, from: run.from + 1, taintedTo: 0 }, later);
  return {
    ...others,
    runs: [...others.runs, startRun(Uint32Array.of(row), 1)],
    cap: Math.max(1, undecided(others).length),
    putOff: [...plan.putOff, row],
  };
}

type Word = NonNullable<Plan["word"]>;

function byWord(index: number, said: Refusal): DeadRow {
  const message = `this row cannot be parsed either; one of the batch was told: ${said.message}`;
  return { index, code: said.code, message };
}

/** The plan with its first run advanced; a run that is through leaves its pool as a run of its own. */
function withRun(plan: Plan, run: Run, later: readonly Run[]): Plan {
  if (run.from < run.rows.length) return { ...plan, runs: [run, ...later] };
  const pool = restOf(run);
  return { ...plan, runs: pool.length === 0 ? later : [startRun(pool, pool.length), ...later] };
}

/** Rows whose fate is open, ascending. */
export function undecided(plan: Plan): Uint32Array {
  const parts = plan.runs.map(restOf);
  const rows = new Uint32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    rows.set(part, at);
    at += part.length;
  }
  return rows.sort();
}

/** At most `count` of some rows, evenly spaced. */
function sample(rows: Uint32Array, count: number): Uint32Array {
  if (rows.length <= count) return rows;
  return Uint32Array.from(
    { length: count },
    (_, at) => rows[Math.floor(at * rows.length / count)] as number,
  );
}

interface Run {
  /** Ascending 0-based places in the batch. */
  readonly rows: Uint32Array;
  /** Rows before this one are decided or in the pool. */
  readonly from: number;
  /** `rows[from, taintedTo)` is known to hold a bad row; not above `from`: nothing is known. */
  readonly taintedTo: number;
  /** How many rows to try at once. */
  readonly window: number;
  /** Rows stored since the last bad one. */
  readonly clean: number;
  /** Stretches of `rows` to insert together at the end, last first. */
  readonly pool: Stretches;
  /** Each row by itself, whatever happens. */
  readonly alone: boolean;
}

type Stretches = { readonly rows: Uint32Array; readonly tail: Stretches } | null;

function startRun(rows: Uint32Array, window: number, alone = false): Run {
  return { rows, from: 0, taintedTo: 0, window, clean: 0, pool: null, alone };
}

/** The rows of the next INSERT: one at least. */
function currentPiece(run: Run, cap: number): Uint32Array {
  const left = run.rows.length - run.from;
  const tainted = run.taintedTo - run.from;
  // All of a tainted stretch would fail for sure.
  const length = tainted > 1
    ? Math.min(Math.floor(tainted / 2), cap)
    : Math.min(tainted === 1 ? 1 : run.window, cap, left);
  return run.rows.subarray(run.from, run.from + length);
}

/** The current piece is stored. */
function stored(run: Run, cap: number): Run {
  const length = currentPiece(run, cap).length;
  const from = run.from + length;
  const searching = run.taintedTo > run.from;
  return {
    ...run,
    from,
    clean: run.clean + length,
    // What is stored of a tainted stretch is not the bad row: the rest of it holds it.
    taintedTo: run.taintedTo > from ? run.taintedTo : 0,
    window: run.alone || searching ? run.window : Math.min(run.window * 4, run.rows.length),
  };
}

/** The current piece is refused for a row: the 1-based `named` one, or one that is not named. */
function refused(
  run: Run,
  cap: number,
  named: number | null,
): { readonly run: Run; readonly dead: number | null } {
  const piece = currentPiece(run, cap);
  const place = piece.length === 1 ? 1 : named;
  if (place === null) {
    return { run: { ...run, taintedTo: run.from + piece.length }, dead: null };
  }
  const before = piece.subarray(0, place - 1);
  const window = named === null ? Math.max(1, 2 * run.clean) : Math.max(8, 4 * place);
  return {
    dead: piece[place - 1] as number,
    run: {
      ...run,
      from: run.from + place,
      taintedTo: 0,
      clean: 0,
      window: run.alone ? 1 : window,
      pool: before.length === 0 ? run.pool : { rows: before, tail: run.pool },
    },
  };
}

/** Rows whose fate is open: the pool and what lies ahead, ascending. */
function restOf(run: Run): Uint32Array {
  const ahead = run.rows.subarray(run.from);
  let length = ahead.length;
  for (let at = run.pool; at !== null; at = at.tail) length += at.rows.length;
  const rest = new Uint32Array(length);
  let end = length - ahead.length;
  rest.set(ahead, end);
  for (let at = run.pool; at !== null; at = at.tail) {
    end -= at.rows.length;
    rest.set(at.rows, end);
  }
  return rest;
}

// ── The trail: what is noted of a batch whose INSERTs are under way, and the plan that follows. Lines of JSON: the
// first says how the batch began, each other one is something that happened to its plan. An INSERT that has
// no line yet may or may not be stored; the plan comes to the same one again, under the same token.

/** Of the plan: another one would cut the same batch elsewhere. To be counted up when it changes. */
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
