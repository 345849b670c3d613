/**
 * The one place that changes tables: makes one of its first rows, and adds columns that rows ask for. Which
 * types they get is ClickHouse's word (`infer.ts`).
 *
 * Changes of one table come one after the other, and each begins with a look at the table as it is by then:
 * of all that wait for a table the first makes it. Between collectors ClickHouse decides: of several CREATE
 * statements one succeeds, and ADD COLUMN leaves a column alone that is there. Nothing here is on the way
 * of rows whose table and keys are known.
 */

import {
  type Answered,
  type Ask,
  type Clock,
  type Columns,
  type Endpoint,
  type KeyRule,
  type Log,
  type Remade,
  REST,
  type TableChanged,
  type TableMaker,
  type TableProposal,
  type UnknownKeys,
} from "../contracts.ts";
import { compileGlobs, placeOf } from "../kernel/names.ts";
import { failed, type Result } from "../kernel/result.ts";
import {
  columnsIn,
  INFER_SETTINGS,
  INFER_SQL,
  keysOfManyTypes,
  type NewColumn,
  type NewTable,
  type Sample,
  sampleOf,
  tableOf,
  widerType,
  withoutLargeIntegers,
} from "./infer.ts";
import type { Plans } from "./plan.ts";
import type { Query } from "./query.ts";
import {
  addColumns,
  behindDistributed,
  countAdded,
  countInexact,
  createRowsTable,
  engineOf,
  qualified,
  quoteName,
  widenColumn,
} from "./sql.ts";
import { isTooOld } from "./verdict.ts";

export interface MakerSettings {
  /** Names and globs of tables that are made when they are missing. */
  readonly createTables: readonly string[];
  readonly unknownKeys: readonly KeyRule[];
  /** Columns that rows may ask for, of each table. */
  readonly maxNewColumns: number;
  /** Whether types that turn out too narrow are widened. */
  readonly widen: boolean;
  /** Where statements go to every host of it. */
  readonly cluster: string | null;
}

export interface MakerTools extends MakerSettings {
  readonly query: Query;
  readonly ask: Ask;
  readonly plans: Plans;
  /** The first server: its user and database. */
  readonly endpoint: Pick<Endpoint, "database" | "user">;
  readonly clock: Clock;
  readonly log: Log;
  /** A table has been changed by this statement. */
  readonly onChange?: (change: TableChange) => void;
}

type Refusal = Remade & { readonly ok: false };

export interface TableChange {
  readonly table: string;
  readonly what: TableChanged;
  readonly ddl: string;
}

/** A server from before it could sync an INSERT, or without the setting that it names. */
const UNKNOWN_SETTING = 115;
const ALREADY_THERE = 57;
/** A constraint of the same name is there. */
const WIDENED_BEFORE = 44;
const NO_RIGHT: ReadonlySet<number> = new Set([164, 497]);
const NO_TYPES = 636;
/** A name that ClickHouse has for itself, such as `_row_exists`. */
const OF_COLUMN: ReadonlySet<number> = new Set([44]);
/** Another change of the table is under way. */
const BUSY: ReadonlySet<number> = new Set([473, 517, 159]);
const MOST_TRIES = 5;
/** A change that was refused is not tried again for as long. */
const REFUSED_TTL_MS = 2_000;
/** Clients choose the names that a glob matches: tables made since the start. */
const MOST_MADE = 1000;
/** Tables whose policy is remembered; clients choose the names that are asked for. */
const REMEMBERED = 1000;
/** Of settings for the inference that a server does not know. */
const MOST_UNKNOWN = 12;

export function createMaker(tools: MakerTools): TableMaker & { close(): void } {
  const { query, ask, plans, endpoint, clock, log, cluster } = tools;
  const { database, user } = endpoint;
  const closing = new AbortController();
  const { signal } = closing;
  const makes = compileGlobs(tools.createTables);
  const unknownKeys = policyOf(tools.unknownKeys);
  /** By table: the change that came last. */
  const busy = new Map<string, Promise<Remade>>();
  /** By table, or a column of one (`ofColumn`): what was refused, and until when it is not tried again. */
  const refusals = new Map<string, { readonly untilMs: number; readonly said: Refusal }>();
  let made = 0;

  /** One change of a table at a time. */
  function inTurn(table: string, change: () => Promise<Remade>): Promise<Remade> {
    const mine = (busy.get(table) ?? Promise.resolve()).then(change);
    busy.set(table, mine);
    void mine.then(() => busy.get(table) === mine && busy.delete(table));
    return mine;
  }

  function refused(what: string): Refusal | null {
    const refusal = refusals.get(what);
    if (refusal === undefined) return null;
    if (clock.monotonicMs() < refusal.untilMs) return refusal.said;
    refusals.delete(what);
    return null;
  }

  function refuse(what: string, why: "right" | "kind", problem: string): Refusal {
    const said: Refusal = { ...failed(problem), why };
    refusals.set(what, { untilMs: clock.monotonicMs() + REFUSED_TTL_MS, said });
    for (const oldest of refusals.keys()) {
      if (refusals.size <= MOST_MADE) break;
      refusals.delete(oldest);
    }
    return said;
  }

  /**
   * What a statement that was refused means. @param what the table, or the column, for which that is remembered.
   * @param wanted `create logs_web`. @param grant what it takes.
   */
  async function trouble(
    what: string,
    wanted: string,
    grant: string,
    { code, problem }: { readonly code: number; readonly problem: string },
  ): Promise<Refusal> {
    if (NO_RIGHT.has(code)) {
      const todo = `GRANT ${grant} TO ${quoteName(user)}`;
      return refuse(what, "right", `the user of clickhouse-url may not ${wanted}: ${todo}`);
    }
    if (code === NO_TYPES) {
      const reason = "no types can be found in its rows; a number may be too large for any";
      return { ...failed(`cannot ${wanted}: ${reason}`), why: "rows" };
    }
    // 18.16 takes a bound value for a setting.
    if (isTooOld(code) || code === UNKNOWN_SETTING) {
      return refuse(what, "kind", `cannot ${wanted}: ${await tooOldToInfer()}`);
    }
    return code === 0 || BUSY.has(code)
      ? { ...failed(problem), why: "away" }
      : refuse(what, "kind", `cannot ${wanted}: ${problem}`);
  }

  async function tooOldToInfer(): Promise<string> {
    const answer = await query.rows("SELECT version() AS version", signal);
    const version = answer.ok ? answer.value[0]?.["version"] : undefined;
    const is = typeof version === "string" ? `is ${version}` : "is older";
    return `it takes ClickHouse 22.10 or newer to find types in rows, and this server ${is}; ` +
      "do it by hand";
  }

  async function infer(sample: Sample): Promise<Answered<Result<readonly NewColumn[]>>> {
    if (sample.values.size === 0) return { ok: true, value: columnsIn(new Map(), sample) };
    const types = await typesIn(sample);
    if (types.ok) return { ok: true, value: columnsIn(types.value, sample) };
    if (types.code !== NO_TYPES) return types;
    // One such row costs itself.
    const others = withoutLargeIntegers(sample);
    if (others.rows === 0 || others.rows === sample.rows) return types;
    const found = await typesIn(others);
    return found.ok ? { ok: true, value: columnsIn(found.value, sample) } : found;
  }

  async function typesIn(sample: Sample): Promise<Answered<ReadonlyMap<string, string>>> {
    const settings: Record<string, string> = { ...INFER_SETTINGS };
    const texts = keysOfManyTypes(sample);
    for (let left = MOST_UNKNOWN;; left--) {
      const answer = await ask(
        { sql: INFER_SQL, format: "JSONEachRow", params: { sample: sample.text }, settings },
        signal,
      );
      const unknown = answer.ok || answer.code !== UNKNOWN_SETTING
        ? undefined
        : /setting '?([a-z_]+)/i.exec(answer.problem)?.[1];
      if (
        left > 0 && unknown !== undefined && delete settings[unknown] && unknown in INFER_SETTINGS
      ) {
        continue;
      }
      if (
        !answer.ok && answer.code === NO_TYPES && texts.length > 0 &&
        !("schema_inference_hints" in settings)
      ) {
        settings["schema_inference_hints"] = texts.map((key) => `${quoteName(key)} String`).join(
          ", ",
        );
        continue;
      }
      if (!answer.ok) return answer;
      const rows = answer.value.split("\n").filter((line) => line !== "").map((line) =>
        JSON.parse(line) as Record<string, unknown>
      );
      const types = new Map(rows.map((row) => [String(row["name"]), String(row["type"])]));
      return { ok: true, value: types };
    }
  }

  /** Told in the log and wherever else changes are shown. */
  function changed(table: string, what: TableChange["what"], ddl: string): void {
    const line = ddl.replace(/\s+/g, " ");
    log.info(SAID[what], {
      table,
      ddl: line,
    });
    tools.onChange?.({ table, what, ddl });
  }

  async function make(table: string, rows: Uint8Array): Promise<Remade> {
    const known = plans.plan(table) ?? await plans.refresh(table);
    if (typeof known === "object") return as(known);
    if (known === "unknown") return AWAY;
    const wanted = `create ${table}`;
    if (made >= MOST_MADE) {
      return refuse(
        table,
        "kind",
        `cannot ${wanted}: ${MOST_MADE} tables were made since the start`,
      );
    }
    const place = placeOf(table).database ?? database;
    const grant = `CREATE TABLE ON ${quoteName(place)}.*`;
    const sample = sampleOf(rows, null);
    const { looked } = sample;
    const inferred = await infer(sample);
    if (!inferred.ok) {
      const said = await trouble(table, wanted, grant, inferred);
      const each = withoutLargeIntegers(sample).rows === 0 || looked === 1;
      return said.why === "rows" ? { ...said, looked, each } : said;
    }
    if (!inferred.value.ok) {
      const said = failed(`cannot ${wanted}: ${inferred.value.problem}`);
      return { ...said, why: "rows", looked, each: true };
    }
    const columns = inferred.value.value;
    if (columns.length > tools.maxNewColumns) {
      const problem = `its rows have ${columns.length} keys, and max-new-columns is ` +
        `${tools.maxNewColumns}`;
      return {
        ...failed(`cannot ${wanted}: ${problem}`),
        why: "rows",
        looked,
        each: looked === 1,
      };
    }
    const asked = tableOf(columns, sample);
    const { done, ddl } = await create(table, asked);
    if (!done.ok && done.code !== ALREADY_THERE) return await trouble(table, wanted, grant, done);
    if (done.ok) {
      made++;
      changed(table, "created", ddl);
    }
    const now = await plans.refresh(table);
    return typeof now === "object"
      ? { ...as(now), created: done.ok, added: done.ok ? asked.columns.map(shown) : [] }
      : AWAY;
  }

  async function create(table: string, wanted: NewTable) {
    let ddl = createRowsTable(database, table, wanted, cluster);
    let done = await query.command(ddl, signal);
    if (!done.ok && done.code === UNKNOWN_SETTING) {
      ddl = createRowsTable(database, table, wanted, cluster, false);
      done = await query.command(ddl, signal);
    }
    return { done, ddl };
  }

  async function extend(
    table: string,
    keys: ReadonlySet<string> | null,
    rows: Uint8Array,
  ): Promise<Remade> {
    const all = keys?.has(REST) ? [REST] : [...sampleOf(rows, keys).values.keys()];
    const asked = all.filter((key) => refused(ofColumn(table, key)) === null);
    if (asked.length === 0 && all.length > 0) return refused(ofColumn(table, all[0]!)) ?? AWAY;
    const lacking = (columns: Columns) =>
      new Set(asked.filter((key) => !columns.names.has(key) && !columns.closed.has(key)));
    const before = plans.plan(table);
    if (before !== null && lacking(before).size === 0) return as(before);
    const known = await plans.refresh(table);
    if (known === "unknown") return AWAY;
    if (known === "missing") return { ...failed(`there is no table ${table}`), why: "kind" };
    const missing = lacking(known);
    if (missing.size === 0) return as(known);
    const wanted = `add columns to ${table}`;
    const grant = `ALTER ADD COLUMN ON ${qualified(database, table)}`;
    const engine = "engine" in known ? String(known.engine) : "";
    const inferred = missing.has(REST) ? KEPT : await infer(sampleOf(rows, missing));
    if (!inferred.ok) return await trouble(table, wanted, grant, inferred);
    if (!inferred.value.ok) {
      return { ...failed(`cannot ${wanted}: ${inferred.value.problem}`), why: "rows" };
    }
    const places = await placesOf(table, engine);
    if (typeof places === "string") {
      const ddl = addColumns(database, table, inferred.value.value, null);
      return refuse(table, "kind", `${places}: ${ddl}`);
    }
    const room = await roomFor(table);
    if (!room.ok) return await trouble(table, wanted, grant, room);
    const columns = inferred.value.value.slice(0, room.value);
    if (columns.length === 0) {
      const max = tools.maxNewColumns;
      return refuse(
        table,
        "kind",
        `its rows have been given ${max} columns, and max-new-columns is ${max}`,
      );
    }
    const refusal = await add(
      table,
      places,
      columns,
      (done) => trouble(table, wanted, grant, done),
    );
    if (refusal !== null) return refusal;
    const now = await plans.refresh(table);
    if (typeof now !== "object") return AWAY;
    const types = new Map(now.columns.map(({ name, type }) => [name, type]));
    const added = columns.filter(({ name }) => types.has(name))
      .map(({ name }) => shown({ name, type: types.get(name)! }));
    return { ...as(now), added };
  }

  /** @returns why none was added; null: those that ClickHouse takes were. */
  async function add(
    table: string,
    places: readonly string[],
    columns: readonly NewColumn[],
    trouble: (done: Answered<null> & { readonly ok: false }) => Promise<Refusal>,
  ): Promise<Refusal | null> {
    for (const place of places) {
      const ddl = addColumns(database, place, columns, cluster);
      const done = await patiently(ddl);
      if (done.ok) {
        changed(place, "columns", ddl);
        continue;
      }
      if (!OF_COLUMN.has(done.code)) return await trouble(done);
      if (columns.length === 1) {
        const { name } = columns[0]!;
        return refuse(
          ofColumn(table, name),
          "kind",
          `cannot add ${name} to ${table}: ${done.problem}`,
        );
      }
      // One name that ClickHouse wants for itself costs the others nothing.
      const refusals: (Refusal | null)[] = [];
      for (const column of columns) refusals.push(await add(table, places, [column], trouble));
      return refusals.includes(null) ? null : refusals[0]!;
    }
    return null;
  }

  async function propose(
    table: string,
    keys: ReadonlySet<string> | null,
    rows: Uint8Array,
  ): Promise<Result<TableProposal>> {
    const sample = sampleOf(rows, keys);
    const inferred = keys?.has(REST) ? KEPT : await infer(sample);
    const wanted = keys === null ? `create ${table}` : `add columns to ${table}`;
    if (!inferred.ok) {
      const said = await trouble(table, wanted, "", inferred);
      return failed(said.ok ? "" : said.problem);
    }
    if (!inferred.value.ok) return inferred.value;
    const columns = inferred.value.value;
    if (columns.length > tools.maxNewColumns) {
      return failed(
        `its rows ask for ${columns.length} columns, and max-new-columns is ${tools.maxNewColumns}`,
      );
    }
    if (keys !== null) {
      const ddl = addColumns(database, table, columns, cluster);
      return { ok: true, value: { columns, time: null, ddl } };
    }
    const asked = tableOf(columns, sample);
    const ddl = createRowsTable(database, table, asked, cluster);
    return { ok: true, value: { ...asked, ddl } };
  }

  async function foresee(
    table: string,
    before: Columns | null,
    { strange, misfits }: Parameters<NonNullable<TableMaker["foresee"]>>[2],
    rows: Uint8Array,
  ): Promise<Columns | null> {
    const types = new Map(before?.columns.map((column) => [column.name, column]));
    if (before === null || strange !== null) {
      const sample = sampleOf(rows, before === null ? null : strange);
      const inferred = strange?.has(REST) === true ? KEPT : await infer(sample);
      const room = before === null ? null : await roomFor(table);
      if (!inferred.ok || !inferred.value.ok || room?.ok === false) return null;
      const columns = inferred.value.value.slice(0, room?.value);
      for (const { name, type } of columns) types.set(name, { name, type, defaultKind: "" });
    }
    for (const column of before === null ? [] : tooNarrow(before, misfits ?? new Map())) {
      const { name, type } = column;
      if (column.ifExact && !await isExact(table, name)) continue;
      types.set(name, { ...types.get(name)!, type });
    }
    return {
      names: new Set([...before?.names ?? [], ...types.keys()]),
      closed: before?.closed ?? new Map(),
      columns: [...types.values()],
      fingerprint: "",
      takesNone: before?.takesNone ?? null,
    };
  }

  /** Columns that hold more of these values with another type. */
  function tooNarrow(columns: Columns, misfits: ReadonlyMap<string, readonly string[]>) {
    return columns.columns.flatMap(({ name, type: from }) => {
      const wider = widerType(from, misfits.get(name) ?? []);
      return wider === null ? [] : [{ name, from, ...wider }];
    });
  }

  /** What was refused of such columns lately; null: one of them may be tried. */
  function refusedToWiden(
    table: string,
    columns: readonly { readonly name: string }[],
  ): Refusal | null {
    const said = columns.map(({ name }) => refused(ofColumn(table, name)));
    return said.includes(null) ? null : said[0] ?? null;
  }

  async function widen(
    table: string,
    misfits: ReadonlyMap<string, readonly string[]>,
  ): Promise<Remade> {
    const known = await plans.refresh(table);
    if (typeof known !== "object") return AWAY;
    const wanted = `widen columns of ${table}`;
    const grant = `ALTER MODIFY COLUMN, ALTER ADD CONSTRAINT ON ${qualified(database, table)}`;
    const narrow = tooNarrow(known, misfits);
    const before = refusedToWiden(table, narrow);
    if (before !== null) return before;
    const columns = narrow.filter(({ name }) => refused(ofColumn(table, name)) === null);
    const engine = "engine" in known ? String(known.engine) : "";
    const added: string[] = [];
    let refusal: Refusal | null = null;
    // Of a Distributed table the types of its shards are not known.
    const places = engine === "Distributed" ? `${table} ${BY_HAND}` : await placesOf(table, engine);
    for (const column of columns) {
      const ddl = widenColumn(database, table, column, cluster);
      if (typeof places === "string") {
        return refuse(ofColumn(table, column.name), "kind", `${places}: ${ddl}`);
      }
      const exact = column.ifExact ? await isExact(table, column.name) : true;
      if (!exact) continue;
      const done = await patiently(ddl);
      if (!done.ok) {
        if (done.code === WIDENED_BEFORE) continue;
        // A column of the sorting key stays as it is; that says nothing of the others.
        refusal = await trouble(ofColumn(table, column.name), wanted, grant, done);
        continue;
      }
      added.push(shown(column));
      changed(table, "widened", ddl);
    }
    const now = await plans.refresh(table);
    if (refusal !== null && added.length === 0) return refusal;
    return typeof now === "object" ? { ...as(now), added } : AWAY;
  }

  /** Whether a Float64 holds every number of a column, with its digits. */
  async function isExact(table: string, column: string): Promise<boolean> {
    const answer = await query.rows(countInexact(database, table, column), signal);
    return answer.ok && Number(answer.value[0]?.["n"] ?? 1) === 0;
  }

  /**
   * The tables that a statement about one has to reach, in their order; or why it cannot.
   * @param engine `""`: not known.
   */
  async function placesOf(table: string, engine: string): Promise<readonly string[] | string> {
    if (!/^(?:Replicated|Distributed)/.test(engine)) return [table];
    const is = `${table} is a ${engine} table`;
    if (cluster === null) {
      const where = engine === "Distributed" ? "the tables behind it and on it" : "each shard";
      return `${is} and cluster is not set; on ${where}`;
    }
    if (engine !== "Distributed") return [table];
    const answer = await query.rows(engineOf(database, table), signal);
    const full = answer.ok ? String(answer.value[0]?.["engine_full"]) : "";
    const behind = behindDistributed(full);
    // Rows must find the columns in the shards from the moment on at which they are named.
    return behind === null ? `${is} and does not tell what is behind it; by hand` : [behind, table];
  }

  /** For how many more columns there is room. */
  async function roomFor(table: string): Promise<Answered<number>> {
    const answer = await query.rows(countAdded(database, table), signal);
    if (!answer.ok) return answer;
    const value = Math.max(0, tools.maxNewColumns - Number(answer.value[0]?.["n"] ?? 0));
    return { ok: true, value };
  }

  /** Changes by others end by themselves. */
  async function patiently(ddl: string): Promise<Answered<null>> {
    for (let left = MOST_TRIES;; left--) {
      const done = await query.command(ddl, signal);
      if (done.ok || left <= 1 || !BUSY.has(done.code)) return done;
    }
  }

  return {
    makes,
    unknownKeys,
    make: (table, rows) =>
      inTurn(table, () => Promise.resolve(refused(table) ?? make(table, rows))),
    extend: (table, keys, rows) =>
      inTurn(table, () => Promise.resolve(refused(table) ?? extend(table, keys, rows))),
    propose,
    foresee,
    widens: tools.widen,
    widen(table, misfits) {
      const known = plans.plan(table);
      // Most values that do not fit would fit no wider type either.
      if (!tools.widen || known === null || tooNarrow(known, misfits).length === 0) {
        return Promise.resolve({ ...failed("no wider type holds it"), why: "rows" });
      }
      return inTurn(table, () => widen(table, misfits));
    },
    close: () => closing.abort(),
  };
}

/** Whatever a value is, it is the text of itself there. */
const KEPT: Answered<Result<readonly NewColumn[]>> = {
  ok: true,
  value: { ok: true, value: [{ name: REST, type: "Map(String, String)" }] },
};
const SAID: Readonly<Record<TableChange["what"], string>> = {
  created: "made a table",
  columns: "added columns to a table",
  widened: "widened a column",
};
const BY_HAND = "is a Distributed table, whose shards are widened by hand";
const AWAY: Refusal = { ...failed("ClickHouse cannot be asked"), why: "away" };

/** Under what a refusal of one column is remembered; no table is called that. */
function ofColumn(table: string, column: string): string {
  return `${table}\n${column}`;
}

function as(columns: Columns): Remade & { readonly ok: true } {
  return { ok: true, columns, created: false, added: [] };
}

function shown({ name, type }: NewColumn): string {
  return `${name} ${type}`;
}

/** The policy of a table: of the rule with its name, else of the first glob that matches, else of the rest. */
export function policyOf(rules: readonly KeyRule[]): (table: string) => UnknownKeys {
  const rank = ({ table }: KeyRule) => table === null ? 2 : /[*?]/.test(table) ? 1 : 0;
  const compiled = rules.toSorted((a, b) => rank(a) - rank(b)).map(({ table, policy }) => ({
    matches: table === null ? () => true : compileGlobs([table]),
    policy,
  }));
  const known = new Map<string, UnknownKeys>();
  return (table) => {
    let policy = known.get(table);
    if (policy === undefined) {
      policy = compiled.find(({ matches }) => matches(table))?.policy ?? "error";
      if (known.size < REMEMBERED) known.set(table, policy);
    }
    return policy;
  };
}
