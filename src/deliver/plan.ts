/**
 * The plan of each table: what is known of its columns, engine, deduplication window and of what it cannot
 * take; asked rarely, remembered shortly, and answered from memory.
 * So long may a row be refused for a column that was added a moment ago, hence the short times.
 * A table that is missing is remembered more shortly than one that is there, so that a table created
 * a moment ago is found; a server that cannot be asked is left alone for a second.
 *
 * In front of each INSERT of rows comes a short question, below.
 */

import { Buffer } from "node:buffer";
import { nodeCrypto, nodeUtil } from "../kernel/builtins.ts";
import type { Answered, Clock, Closed, Columns, InsertRequest, Log, Tables } from "../contracts.ts";
import { isTableName, placeOf } from "../kernel/names.ts";
import { failed } from "../kernel/result.ts";
import { Underway, within } from "../kernel/time.ts";
import { type Query, type Row, tooOld } from "./query.ts";
import {
  checkGrant,
  createEventsTable,
  describeColumns,
  describeColumnsOfAll,
  describeTable,
  insertableColumns,
} from "./sql.ts";
import { isTooOld } from "./verdict.ts";

export type Known = TablePlan | "missing" | "unknown";

/** What is known of one table. */
export interface TablePlan extends Columns {
  /** Null: not known. */
  readonly engine: string | null;
  /** How many blocks it remembers by their token, one for each partition of an INSERT; null: not known. */
  readonly window: number | null;
  /** `""`: none; null: not known. */
  readonly partitionKey: string | null;
  /** Whether rows go on to materialized views; null: not known. */
  readonly views: boolean | null;
  /** Of the server, `[26, 7]`; null: not known. */
  readonly version?: readonly [number, number] | null;
}

/** What is known of a table beside its columns; null where there is nothing. */
export function planOf(columns: Columns | "missing" | "unknown"): TablePlan | null {
  return typeof columns === "object" && "window" in columns ? columns as TablePlan : null;
}

/** How many blocks a table remembers, as far as that is known. */
export function windowOf(columns: Columns): number | null {
  return planOf(columns)?.window ?? null;
}

/** An INSERT into more partitions is refused, as ClickHouse comes. */
const MOST_PARTITIONS = 100;

/** How many blocks an INSERT adds to what the table remembers: never too few. */
export function blocksOf(
  plan: TablePlan | null,
  { shape, rows, body }: Pick<InsertRequest, "shape" | "rows" | "body">,
): number {
  if (plan === null || plan.partitionKey === "") return 1;
  const most = Math.min(rows, MOST_PARTITIONS);
  if (shape !== "event" || plan.partitionKey !== BY_MONTH) return most;
  const { times, months } = monthsIn(body);
  // Some are written in another way.
  return times < rows ? most : Math.min(most, months.size);
}

/** The partition key of the table of events. */
const BY_MONTH = "toYYYYMM(timestamp)";
const TIME = '"timestamp"';
const SPACE = 0x20;
const COLON = 0x3a;
const QUOTE = 0x22;
/** Characters of `2026`, and of `2026-11`. */
const YEAR = 4;
const MONTH = 7;
const DASH = 0x2d;

/** How many times stand in rows, and in which months they are; nearly all are in that of the time before. */
function monthsIn(body: readonly Uint8Array[]) {
  const months = new Set<string>();
  let times = 0;
  for (const piece of body) {
    const text = Buffer.from(piece.buffer, piece.byteOffset, piece.length);
    let last = -1;
    for (let at = text.indexOf(TIME); at >= 0; at = text.indexOf(TIME, at)) {
      at += TIME.length;
      while (text[at] === SPACE) at++;
      if (text[at++] !== COLON) continue;
      while (text[at] === SPACE) at++;
      // Other forms of a time tell no month.
      if (text[at++] !== QUOTE || text[at + YEAR] !== DASH) continue;
      times++;
      if (last >= 0 && text.compare(text, last, last + MONTH, at, at + MONTH) === 0) continue;
      last = at;
      months.add(text.toString("latin1", at, at + MONTH));
    }
  }
  return { times, months };
}

export interface TableTools {
  readonly query: Query;
  readonly database: string;
  readonly eventsTable: string;
  readonly clock: Clock;
  readonly log: Log;
  /** How long columns count as fresh, milliseconds; `TTL_MS` where not given. */
  readonly ttlMs?: number;
}

export const TTL_MS = 5_000;
/** What else is known of a table whose columns are confirmed meanwhile lasts so many times as long. */
const CONFIRMED = 6;
const MISSING_TTL_MS = 2_000;
const UNKNOWN_TTL_MS = 1_000;
/** Columns that rows did not fit count as fresh for so long. */
const DOUBTED_TTL_MS = 500;
const MAX_TABLES = 1000;

interface Entry {
  known: Known;
  /** When `known` was learned, on the monotonic clock. */
  atMs: number;
  /** Rows have not fitted it since. */
  doubted: boolean;
  /** The question under way. */
  asking: Promise<Known> | null;
  /** Columns without a right to insert into them, and when that was learned; null: not asked. */
  refused: { readonly names: ReadonlySet<string>; readonly atMs: number } | null;
  /** When the server was asked last, of what it has answered. */
  askedMs: number;
  /** What the columns of `known` were told as. */
  told: string;
  /** What was known before, newest first. */
  readonly earlier: TablePlan[];
  /** The check under way of what is known, and the one that begins after it. */
  checking: Promise<Known> | null;
  checkingNext: Promise<Known> | null;
}

/** Plans of a table that are remembered after it has changed. */
const MOST_EARLIER = 8;

/**
 * The columns that an INSERT of rows with these keys names: those that are there, also where the right to
 * them is missing, which then is what ClickHouse says.
 * @param keys null: not known. @returns null where none can be named.
 */
export function namedColumns(
  { names, closed, columns }: Columns,
  keys: ReadonlySet<string> | null,
): readonly string[] | null {
  const named = [...keys ?? names].filter((key) =>
    names.has(key) || closed.get(key)?.why === "right"
  ).sort();
  if (named.length > 0) return named;
  // Rows of nothing but defaults; some servers would give a column that is named a zero instead.
  const any = columns.find(({ defaultKind }) => defaultKind === "") ??
    columns.find(({ defaultKind }) => defaultKind === "DEFAULT");
  return any === undefined ? null : [any.name];
}

/** What the room itself knows of tables, beyond what others may ask. */
export interface Plans extends Tables {
  /** From memory, whatever its age; null where nothing is known. */
  plan(table: string): TablePlan | null;
  refresh(table: string, rights?: boolean): Promise<Known>;
  /**
   * As the columns are from this call on, for rows that are about to be sent; `unknown`: the server does not
   * tell. A short question, unless they have changed.
   * @param withinMs as they have been so long ago will do.
   */
  current(table: string, withinMs?: number): Promise<Known>;
  /** A plan that was known before, by its fingerprint; null: forgotten, or an earlier process had it. */
  earlier(table: string, fingerprint: string): TablePlan | null;
}

/** A server from before it could sync an INSERT. */
const UNKNOWN_SETTING = 115;
/** The user's profile lets it set nothing, and then write nothing either. */
const READ_ONLY_USER = 164;
const NO_RIGHT = 497;
/** Questions about the rights to one table's columns, by halving; those that are left count as given. */
const MOST_RIGHTS = 200;
/** A right that was missing is asked for again after this; one that was there when an INSERT lacks it. */
const RIGHTS_TTL_MS = 15_000;

export function createTables(tools: TableTools): Plans & {
  /** CREATE TABLE IF NOT EXISTS for the table of events. Never rejects. */
  prepare(): Promise<Answered<null>>;
  /** Ends questions under way. */
  close(): Promise<void>;
} {
  const { query, database, eventsTable, clock, log, ttlMs = TTL_MS } = tools;
  const entries = new Map<string, Entry>();
  const closing = new AbortController();
  const underway = new Underway();
  const questions = new ShortQuestions({ query, clock, database, signal: closing.signal });

  function entryOf(table: string): Entry {
    const known = entries.get(table);
    if (known !== undefined) return known;
    const entry: Entry = {
      ...{ known: "unknown", atMs: -Infinity, doubted: false, asking: null, refused: null },
      ...{ askedMs: -Infinity, told: "", earlier: [], checking: null, checkingNext: null },
    };
    entries.set(table, entry);
    for (const oldest of entries.keys()) {
      if (entries.size <= MAX_TABLES) break;
      entries.delete(oldest);
    }
    return entry;
  }

  function isFresh(entry: Entry): boolean {
    const keepMs = entry.known === "missing"
      ? MISSING_TTL_MS
      : entry.known === "unknown"
      ? UNKNOWN_TTL_MS
      : entry.doubted
      ? DOUBTED_TTL_MS
      : ttlMs;
    const nowMs = clock.monotonicMs();
    if (nowMs - entry.atMs < keepMs) return true;
    // A right that is missing may be given at any time.
    const settled = !entry.doubted && (entry.refused?.names.size ?? 0) === 0;
    const confirmed = typeof entry.known === "object" && settled;
    return confirmed && nowMs - entry.askedMs < keepMs && nowMs - entry.atMs < keepMs * CONFIRMED;
  }

  /** One question at a time for a table; its answer serves all that ask meanwhile. */
  function ask(table: string): Promise<Known> {
    const entry = entryOf(table);
    if (entry.asking !== null) return entry.asking;
    // At the end: what is used is asked about, and what was not for the longest time is forgotten.
    entries.delete(table);
    entries.set(table, entry);
    const askedMs = clock.monotonicMs();
    const asking = askServer(table, entry).then((known) => {
      entry.asking = null;
      if (known !== "unknown") entry.askedMs = askedMs;
      entry.doubted = false;
      entry.atMs = clock.monotonicMs();
      // Old knowledge beats none: rows are judged by it until the server can be asked.
      if (known !== "unknown" || typeof entry.known === "string") learn(entry, known);
      else entry.atMs -= Math.max(ttlMs - UNKNOWN_TTL_MS, 0);
      return known;
    });
    entry.asking = asking;
    void underway.add(asking);
    return asking;
  }

  function learn(entry: Entry, known: Known): void {
    const before = entry.known;
    // The same object: what was made of it for the scanner stays.
    if (nodeUtil().isDeepStrictEqual(known, before)) return;
    entry.known = known;
    if (typeof before === "string") return;
    if (typeof known === "object" && known.fingerprint === before.fingerprint) return;
    entry.earlier.unshift(before);
    entry.earlier.length = Math.min(entry.earlier.length, MOST_EARLIER);
  }

  function current(table: string, withinMs = 0): Promise<Known> {
    const entry = entryOf(table);
    const { known, askedMs } = entry;
    if (typeof known === "object" && clock.monotonicMs() - askedMs < withinMs) {
      return Promise.resolve(known);
    }
    if (entry.checking === null) return entry.checking = check(table, entry);
    // One that is under way may have been answered before rows came that it has to be right about.
    return entry.checkingNext ??= entry.checking.then(() => {
      entry.checkingNext = null;
      return entry.checking = check(table, entry);
    });
  }

  async function check(table: string, entry: Entry): Promise<Known> {
    const known = await underway.add(confirm(table, entry));
    // The next one, if there is one, takes its place.
    if (entry.checkingNext === null) entry.checking = null;
    return known;
  }

  /** The whole question takes ten times as long, and holds more that seldom changes. */
  async function confirm(table: string, entry: Entry): Promise<Known> {
    const { known, told } = entry;
    if (typeof known === "string" || told === "") return await refresh(table);
    const askedMs = clock.monotonicMs();
    const answer = await questions.ask(table);
    if (!answer.ok) return "unknown";
    if (toldAs(answer.value) !== told) return await refresh(table);
    entry.askedMs = askedMs;
    return known;
  }

  async function askServer(table: string, entry: Entry): Promise<Known> {
    if (!isTableName(table)) return "missing";
    const describe = (usual: boolean) =>
      query.rows(describeTable(database, table, usual), closing.signal);
    let answer = await describe(true);
    if (!answer.ok && answer.code === NO_RIGHT) answer = await describe(false);
    if (!answer.ok) {
      if (answer.code === READ_ONLY_USER) return { ...UNSEEN, ...READER };
      if (!closing.signal.aborted) {
        log.debug("columns cannot be asked", { table, code: answer.code, error: answer.problem });
      }
      return "unknown";
    }
    const found = columnsOf(answer.value, table);
    entry.told = found === "missing" ? "" : toldAs(answer.value);
    if (found === "missing" || found.takesNone !== null) return found;
    const { refused } = entry;
    const known = refused !== null &&
      (refused.names.size === 0 || clock.monotonicMs() - refused.atMs < RIGHTS_TTL_MS);
    if (known) return restricted(found, table, refused.names);
    const names = await refusedOf(found, table);
    entry.refused = { names, atMs: clock.monotonicMs() };
    return restricted(found, table, names);
  }

  /** Columns that the user has no right to insert into. A server that cannot tell is believed to give all. */
  async function refusedOf(plan: TablePlan, table: string): Promise<ReadonlySet<string>> {
    const refused = new Set<string>();
    let left = MOST_RIGHTS;
    const isGiven = async (columns: readonly string[]) => {
      if (left-- <= 0) return true;
      const word = await query.word(checkGrant(database, table, columns), closing.signal);
      return !word.ok || word.value !== "0";
    };
    if (await isGiven([])) return refused;
    const parts = [[...plan.names]];
    for (let part = parts.pop(); part !== undefined; part = parts.pop()) {
      if (part.length === 0 || await isGiven(part)) continue;
      const middle = part.length >> 1;
      if (middle === 0) refused.add(part[0]!);
      else parts.push(part.slice(middle), part.slice(0, middle));
    }
    return refused;
  }

  async function lookUp(table: string, waitMs: number): Promise<Known> {
    const entry = entryOf(table);
    if (isFresh(entry)) return entry.known;
    const asking = ask(table);
    if (typeof entry.known !== "string") return entry.known;
    return await within(clock, waitMs, asking, entry.known);
  }

  async function refresh(table: string, rights = false): Promise<Known> {
    // A question that is under way may have been answered before the caller's reason to ask.
    const entry = entries.get(table);
    await entry?.asking;
    if (rights && entry !== undefined) entry.refused = null;
    return await ask(table);
  }

  async function create(): Promise<Answered<null>> {
    const { signal } = closing;
    let made = await query.command(createEventsTable(database, eventsTable), signal);
    if (!made.ok && made.code === UNKNOWN_SETTING) {
      made = await query.command(createEventsTable(database, eventsTable, false), signal);
    }
    if (made.ok) {
      await refresh(eventsTable);
      return made;
    }
    const problem = isTooOld(made.code)
      ? await tooOld(query, eventsTable, closing.signal)
      : `cannot create ${eventsTable}: ${made.problem}`;
    return { ...failed(problem), code: made.code };
  }

  function doubt(table: string): void {
    const entry = entries.get(table);
    if (entry === undefined || typeof entry.known === "string") return;
    entry.doubted = true;
    // Where it was learned a moment ago, rows that come later find it stale.
    if (!isFresh(entry)) void ask(table);
  }

  let preparing: Promise<Answered<null>> | null = null;

  return {
    columns(table) {
      const entry = entryOf(table);
      if (!isFresh(entry)) void ask(table);
      return entry.known;
    },
    plan(table) {
      const known = entries.get(table)?.known;
      return typeof known === "object" ? known : null;
    },
    lookUp,
    refresh,
    current,
    earlier(table, fingerprint) {
      const entry = entries.get(table);
      return entry?.earlier.find((plan) => plan.fingerprint === fingerprint) ?? null;
    },
    doubt,
    prepare() {
      preparing ??= create().finally(() => preparing = null);
      return preparing;
    },
    async close() {
      closing.abort();
      await Promise.all([underway.idle(), preparing]);
    },
  };
}

/** Equal where columns are. @param rows as of `describeColumns`, or of `describeTable`. */
function toldAs(rows: readonly Readonly<Record<string, unknown>>[]): string {
  return rows.map(({ name, type, default_kind: kind, default_expression: text }) =>
    JSON.stringify([name, type, kind, text])
  ).sort().join("\n");
}

/** What is known of a table whose columns cannot be asked. */
const UNSEEN: Pick<Columns, "names" | "closed" | "columns" | "fingerprint"> = {
  names: new Set(),
  closed: new Map(),
  columns: [],
  fingerprint: "",
};

/** Engines that keep nothing of their own and take no INSERT. */
const READ_ONLY: ReadonlySet<string> = new Set([
  "View",
  "LiveView",
  "WindowView",
  "Dictionary",
  "Values",
  "Loop",
]);

/** Of a table beside its columns. */
type About = Pick<TablePlan, "engine" | "window" | "takesNone" | "partitionKey" | "views">;

/** Of any table, for a user whose profile is read-only. */
const READER: About = {
  engine: null,
  window: null,
  partitionKey: null,
  views: null,
  takesNone: {
    why: "right",
    reason: "the user of clickhouse-url may only read (its profile sets readonly)",
  },
};

/** Engine, window and refusal, of a row of `describeTable`. */
function engineOf(
  row: Readonly<Record<string, unknown>>,
  table: string,
): About {
  const engine = String(row["engine"] ?? "");
  const views = row["dependencies_table"];
  const about = {
    partitionKey: engine === "" ? null : String(row["partition_key"] ?? ""),
    views: Array.isArray(views) ? views.length > 0 : null,
  };
  if (engine === "") return { engine: null, window: null, takesNone: null, ...about };
  if (Number(row["readonly"] ?? 0) > 0) return { ...READER, ...about };
  const takesNone = READ_ONLY.has(engine)
    ? { why: "kind" as const, reason: `${table} is a ${engine}, which takes no rows` }
    : null;
  if (!engine.endsWith("MergeTree")) return { engine, window: 0, takesNone, ...about };
  const setting = `${
    /^(?:Replicated|Shared)/.test(engine) ? "" : "non_"
  }replicated_deduplication_window`;
  const own = new RegExp(`\\b(?<!non_)${setting} = '?(\\d+)`).exec(String(row["engine_full"]));
  const usual = row[setting];
  const window = own?.[1] ?? (usual === undefined || usual === "" ? null : usual);
  return { engine, window: window === null ? null : Number(window), takesNone, ...about };
}

/** The columns that an INSERT may give; no rows at all: this user sees no such table. */
export function columnsOf(
  rows: readonly Readonly<Record<string, unknown>>[],
  table: string,
): TablePlan | "missing" {
  if (rows.length === 0) return "missing";
  const columns = insertableColumns(rows).toSorted((a, b) =>
    a.name < b.name ? -1 : a.name > b.name ? 1 : 0
  );
  const known = JSON.stringify(columns.map(({ name, type }) => [name, type]));
  const closed = rows.flatMap(({ name, default_kind: kind }): [string, Closed][] =>
    kind === "MATERIALIZED" || kind === "ALIAS"
      ? [[String(name), { why: "kind", reason: `${kind} in ${table}: no row gives it` }]]
      : []
  );
  return {
    names: new Set(columns.map(({ name }) => name)),
    closed: new Map(closed),
    columns,
    fingerprint: nodeCrypto().createHash("sha256").update(known).digest("hex").slice(0, 32),
    ...engineOf(rows[0]!, table),
    ...versionOf(rows[0]!),
  };
}

function versionOf(
  row: Readonly<Record<string, unknown>>,
): Pick<TablePlan, "version" | "old"> {
  const found = /^(\d+)\.(\d+)/.exec(String(row["version"] ?? ""));
  if (found === null) return { version: null };
  const version = [Number(found[1]), Number(found[2])] as const;
  return { version, old: isBefore(version, OLD) };
}

function isBefore([year, month]: readonly [number, number], [of, then]: readonly [number, number]) {
  return year < of || year === of && month < then;
}

/** Before it `null` is no default, and a column that an INSERT names but a row leaves out is zero. */
const OLD = [21, 0] as const;
/** 25.5 confuses DEFAULTs that are made of other columns, 26.7 does not. */
const CONFUSED = [26, 7] as const;

/**
 * Columns that some rows of an INSERT must not leave out while others have them: what they, or others, have by
 * DEFAULT would be another value. None where the server makes the right ones.
 */
export function apartBy(plan: TablePlan): readonly string[] {
  const { version = null, columns } = plan;
  if (version === null || !isBefore(version, CONFUSED)) return [];
  const made = columns.filter(({ defaultKind }) => defaultKind === "DEFAULT");
  if (plan.old === true) return made.map(({ name }) => name);
  const words = new Set(
    made.flatMap(({ defaultText = "" }) => [...defaultText.matchAll(WORDS)].map(wordOf)),
  );
  return columns.map(({ name }) => name).filter((name) => words.has(name));
}

/** Names in an expression; some of them are no columns. */
const WORDS = /`((?:[^`\\]|\\.)*)`|[\p{L}_][\p{L}\p{N}_.]*/gu;

function wordOf([word, quoted]: RegExpExecArray): string {
  return quoted === undefined ? word : quoted.replace(/\\(.)/g, "$1");
}

/** The plan without the columns that the user has no right to insert into. */
function restricted(
  plan: TablePlan,
  table: string,
  refused: ReadonlySet<string>,
): TablePlan {
  if (refused.size === 0) return plan;
  const names = plan.names.difference(refused);
  const why = "right" as const;
  if (names.size === 0) {
    const reason = `the user of clickhouse-url has no right to insert into ${table}`;
    return { ...plan, takesNone: { why, reason } };
  }
  const closed = new Map(plan.closed);
  for (const name of refused) {
    const reason = `the user of clickhouse-url has no right to insert it into ${table}`;
    closed.set(name, { why, reason });
  }
  return { ...plan, names, closed };
}

// ── The short question in front of each INSERT of rows: which columns its table has at this moment. Tables
// that are asked for at once share one question, and those that are asked for while one is under way share
// the next: two hundred tables that are due together would spend half of the time of their INSERTs on
// questions of their own.
//
// A table for which ClickHouse does not answer (a lock that is held, a folder that is gone) holds up no
// other: what gets no answer together, or none soon, is asked for each by itself.

export interface ShortQuestionsDeps {
  readonly query: Pick<Query, "rows">;
  readonly clock: Clock;
  /** Of tables whose name tells none. */
  readonly database: string;
  /** Ends questions under way. */
  readonly signal: AbortSignal;
}

type Told = Answered<readonly Row[]>;

/** Tables by name, and what waits for each. */
type Asking = Map<string, PromiseWithResolvers<Told>>;

/** A question about several tables has so long; a usual one takes 1 to 3 ms. */
const TOGETHER_MS = 250;
/** In one question; what is asked of more tables at once is answered in turn. */
const MOST_TABLES = 64;

export class ShortQuestions {
  #next: Asking = new Map();
  #underway = false;

  constructor(readonly deps: ShortQuestionsDeps) {}

  /** Rows of `name`, `type` and `default_kind`, as they are from this call on; none: there is no such table. */
  ask(table: string): Promise<Told> {
    let asked = this.#next.get(table);
    if (asked === undefined) this.#next.set(table, asked = Promise.withResolvers<Told>());
    if (!this.#underway) void this.#run();
    return asked.promise;
  }

  async #run(): Promise<void> {
    this.#underway = true;
    // What is asked for in the same turn of the event loop goes along.
    await Promise.resolve();
    while (this.#next.size > 0) {
      const all = [...this.#next];
      const asking: Asking = new Map(all.slice(0, MOST_TABLES));
      this.#next = new Map(all.slice(MOST_TABLES));
      await within(this.deps.clock, TOGETHER_MS, this.#askFor(asking), undefined);
    }
    this.#underway = false;
  }

  async #askFor(asking: Asking): Promise<void> {
    const byDatabase = Map.groupBy(asking.keys(), (table) => placeOf(table).database);
    await Promise.all(
      [...byDatabase.values()].map((tables) =>
        tables.length === 1 ? this.#askAlone(tables[0]!, asking) : this.#together(tables, asking)
      ),
    );
  }

  async #askAlone(table: string, asking: Asking): Promise<void> {
    const { query, database, signal } = this.deps;
    asking.get(table)!.resolve(await query.rows(describeColumns(database, table), signal));
  }

  /** @param tables of one database. */
  async #together(tables: readonly string[], asking: Asking): Promise<void> {
    const { query, clock, database, signal } = this.deps;
    const sql = describeColumnsOfAll(database, tables);
    const told = await within(clock, TOGETHER_MS, query.rows(sql, signal), null);
    if (told?.ok) {
      const rows = Map.groupBy(told.value, (row) => row["table"]);
      for (const table of tables) {
        asking.get(table)!.resolve({ ok: true, value: rows.get(placeOf(table).table) ?? [] });
      }
    } else if (told !== null && told.code === 0) {
      // No server answers: none would answer for one of them.
      for (const table of tables) asking.get(table)!.resolve(told);
    } else await Promise.all(tables.map((table) => this.#askAlone(table, asking)));
  }
}
