/**
 * The columns that a batch is sent to, asked before each INSERT, and its rows held against them where
 * they were checked against others, or against none: what ClickHouse would store in place of a value that
 * does not fit is another value.
 *
 * Rows that were taken unseen are read as the door would read them now: keys that are no columns are what
 * `unknown-keys` makes of them, and columns are added or widened. Of rows that a door has read, only columns
 * whose types have changed since are looked at: a key that has become unknown is the table's trouble, or
 * ClickHouse's to refuse.
 *
 * Events are held against the columns of their table likewise, unless these take every event: then they are not
 * looked at, and the columns are asked once a second.
 */

import type {
  Batch,
  Clock,
  Columns,
  EventTypes,
  JudgeRows,
  Misfit,
  RowsToJudge,
  TableMaker,
} from "../contracts.ts";
import { join } from "./rows.ts";

export interface FittingTools {
  /** Null: values are ClickHouse's to judge. */
  readonly judge: () => JudgeRows | null;
  /** As what the fields of events are read, if not as usual; null: they are not looked at. */
  readonly eventTypes: (columns: Columns) => EventTypes | null;
  /** As of `Plans`. */
  readonly current: (table: string, withinMs?: number) => Promise<Current>;
  readonly earlier: (table: string, fingerprint: string) => Columns | null;
  readonly clock: Pick<Clock, "monotonicMs">;
  readonly maker?: TableMaker;
}

type Current = Columns | "missing" | "unknown";

/** A batch's columns that were asked for when it was sealed are those of its first INSERT for so long. */
const FORESEEN_MS = 1000;

/** What was asked for before the turn of a batch, for many at once. */
export class Foreseen {
  readonly #asked = new WeakMap<
    Batch,
    { readonly columns: Promise<Current>; readonly atMs: number }
  >();

  /** @param batches sealed: their rows came before. */
  ask(batches: readonly Batch[], { current, clock }: FittingTools): void {
    const atMs = clock.monotonicMs();
    for (const batch of batches) {
      if (batch.shape === "row") this.#asked.set(batch, { columns: current(batch.table), atMs });
    }
  }

  /** Once. @returns null where it has to be asked now. */
  columnsOf(batch: Batch, { clock }: FittingTools): Promise<Current> | null {
    const asked = this.#asked.get(batch);
    this.#asked.delete(batch);
    return asked !== undefined && clock.monotonicMs() - asked.atMs < FORESEEN_MS
      ? asked.columns
      : null;
  }
}

/** How the rows of a batch lie against their columns. */
export type Fitted =
  /** The columns cannot be had. */
  | { readonly kind: "unseen" }
  /** They are those that its rows were held against. */
  | { readonly kind: "known"; readonly columns: Columns }
  | {
    readonly kind: "judged";
    readonly columns: Columns;
    /** Null: the batch's own. */
    readonly body: readonly Uint8Array[] | null;
    /** Null: as before. */
    readonly keys: ReadonlySet<string> | null;
    readonly misfits: readonly Misfit[];
  }
  /** Columns that rows ask for cannot be added now. */
  | { readonly kind: "held"; readonly problem: string };

/** @param against the fingerprint of the columns that its rows were held against last. */
export async function fitting(
  batch: Batch,
  against: string | null,
  tools: FittingTools,
  foreseen: Foreseen,
): Promise<Fitted> {
  const columns = await (foreseen.columnsOf(batch, tools) ?? columnsFor(batch, tools));
  // A table that takes no rows says so itself, and so does one of which nothing else is known.
  if (typeof columns === "string" || columns.takesNone !== null) return { kind: "unseen" };
  const judge = tools.judge();
  const same = columns.fingerprint === against || columns.fingerprint === batch.fingerprint;
  if (same || judge === null || takesAll(batch, columns, tools)) return { kind: "known", columns };
  return batch.fingerprint === null
    ? await asIfNew(batch, columns, judge, tools.maker)
    : await asChanged(batch, columns, batch.fingerprint, judge, tools);
}

/** Columns that take every event may be a second old. */
const EVENTS_WITHIN_MS = 1000;

async function columnsFor(batch: Batch, tools: FittingTools): Promise<Current> {
  if (batch.shape !== "event") return await tools.current(batch.table);
  const columns = await tools.current(batch.table, EVENTS_WITHIN_MS);
  return typeof columns === "string" || takesAll(batch, columns, tools)
    ? columns
    : await tools.current(batch.table);
}

function takesAll({ shape }: Batch, columns: Columns, { eventTypes }: FittingTools): boolean {
  return shape === "event" && eventTypes(columns) === null;
}

/** Rows that no door has held against any columns. */
async function asIfNew(
  batch: Batch,
  columns: Columns,
  judge: JudgeRows,
  maker: TableMaker | undefined,
): Promise<Fitted> {
  const { table, shape, body } = batch;
  let unknownKeys: RowsToJudge["unknownKeys"] = { policy: maker?.unknownKeys(table) ?? "error" };
  let widens = maker?.widens === true;
  for (;;) {
    const judged = await judge({
      ...{ table, shape, body, columns: rightful(columns), unknownKeys, widens },
    });
    const { strange, wider } = judged;
    if (strange.size === 0 && wider.size === 0) return { kind: "judged", columns, ...judged };
    const remade = strange.size > 0
      ? await maker!.extend(table, strange, join(body))
      : await maker!.widen(table, wider);
    if (!remade.ok && remade.why === "away") return { kind: "held", problem: remade.problem };
    if (remade.ok) columns = remade.columns;
    // What it has been asked for and still has not got are errors.
    if (strange.size === 0) widens = false;
    else if (!remade.ok) unknownKeys = { policy: "error", reason: remade.problem };
    else if (unknownKeys.policy === "column") unknownKeys = { policy: "error" };
    else if ([...strange].some((name) => !columns.names.has(name))) {
      unknownKeys = { policy: "error" };
    }
  }
}

/** Without a right to a column its rows wait: it may be given. */
function rightful(columns: Columns): Columns {
  const given = [...columns.closed].filter(([, { why }]) => why === "right").map(([name]) => name);
  if (given.length === 0) return columns;
  const closed = new Map([...columns.closed].filter(([, { why }]) => why !== "right"));
  return { ...columns, names: columns.names.union(new Set(given)), closed };
}

/** Rows that a door has held against columns of this fingerprint. */
async function asChanged(
  batch: Batch,
  columns: Columns,
  fingerprint: string,
  judge: JudgeRows,
  tools: FittingTools,
): Promise<Fitted> {
  const { table, shape, body } = batch;
  const before = tools.earlier(table, fingerprint);
  const types = new Map(before?.columns.map(({ name, type }) => [name, type]));
  const changed = columns.columns.filter(({ name, type }) => types.get(name) !== type);
  const against = { ...columns, columns: changed, closed: new Map() };
  if (changed.length === 0 || takesAll(batch, against, tools)) return { kind: "known", columns };
  const unknownKeys = { policy: "pass" } as const;
  const judged = await judge({
    ...{ table, shape, body, columns: against, unknownKeys, widens: false },
  });
  return { kind: "judged", columns, ...judged, keys: null };
}
