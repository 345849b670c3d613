/**
 * Takes one batch to ClickHouse and drives the plan that isolates its bad rows. Scheduling and
 * retrying are the caller's: a `transient` or `table` answer in the middle is passed on, and the next
 * `deliver` of the same batch goes on where this one stopped, with the same piece under the same token.
 *
 * What happens to a batch is noted in its trail before the INSERT that follows from it: the plan is made again
 * from that after a restart, so that rows which an INSERT may have stored never go under another token.
 *
 * A schema that changed since the batch was sealed is no fault of its rows: a field that has become
 * unknown, or a batch of which nothing lands, is then held as trouble of the table instead of becoming
 * dead letters.
 */

import type {
  Attempt,
  Batch,
  Columns,
  DeadRow,
  Delivery,
  EventTypes,
  Inserter,
  InsertRequest,
  Log,
  Misfit,
  Sink,
  TableMaker,
  Tables,
  Trouble,
  Verdict,
  ViewName,
} from "../contracts.ts";
import { OWN_WORD } from "../contracts.ts";
import { fitting, type FittingTools, Foreseen } from "./fitting.ts";
import {
  after,
  append,
  type Event,
  first,
  type Plan,
  restart,
  restored,
  startPlan,
  step,
  undecided,
  unstored,
} from "./isolate.ts";
import { Sizes } from "./limits.ts";
import { apartBy, blocksOf, namedColumns, planOf, windowOf } from "./plan.ts";
import { groupsOf, join, keysIn, lineOffsets, pick, tokenOf } from "./rows.ts";
import { mayBeStored } from "./verdict.ts";

export interface SinkTools {
  readonly inserter: Inserter;
  readonly tables: Tables;
  readonly log: Log;
  /** Creates the table of events; null where that is not wanted. True: try the INSERT again. */
  readonly createEventsTable: (() => Promise<boolean>) | null;
  /** Changes tables as their rows ask for; absent: none is changed. */
  readonly maker?: TableMaker;
  /** What one INSERT may have; no bounds unless given. */
  readonly largest?: () => Largest;
  /** Holds rows against their columns before they are sent; absent: they are ClickHouse's to judge. */
  readonly fitting?: Omit<FittingTools, "maker">;
}

/** Of one INSERT. */
export interface Largest {
  readonly rows: number;
  readonly bytes: number;
}

/** What is known of a batch under way; lives as long as the batch object does. */
interface Progress {
  plan: Plan;
  /** Rows of one INSERT at most, from the start. */
  readonly cap: number;
  /** Lines of the trail that are not noted yet. */
  readonly unnoted: string[];
  /** The next INSERT may be stored already. */
  unknown: boolean;
  /** How often in a row it was refused for its size since that was so. */
  refused: number;
  inserts: number;
  /** Whether the table's columns differ from those at the seal; null: not asked yet. */
  schemaChanged: boolean | null;
  /**
   * A field was unknown, but by the time the columns were asked they were those of the seal. Perhaps a
   * column was missing for a moment, or was not named: it is sent once more before a row dies for it.
   */
  triedAgain: boolean;
  /** INSERTs of its table that were stored when a view first refused all of its rows; null: none did. */
  storedThen: number | null;
  /** The keys of its rows; undefined: not looked for yet, null: they cannot be read. */
  keys: ReadonlySet<string> | null | undefined;
  /** The columns that its INSERTs name. */
  columns: readonly string[] | null;
  /** The columns that its rows were held against last; null: none. */
  known: Columns | null;
  /** Whether it is decided which of its rows go together: before the first INSERT, once. */
  grouped: boolean;
  /** Of events, as what its INSERTs read them. */
  types: EventTypes | null;
  /** Its rows and where they lie, for INSERTs of some of them; during an attempt. */
  parts: { readonly whole: Uint8Array; readonly offsets: Float64Array } | null;
  /** The fingerprint of the columns that its rows are held against; null: of none yet. */
  against: string | null;
  /** Its rows as those columns want them, during an attempt; null: as they came. */
  fitted: readonly Uint8Array[] | null;
  /** Rows that do not fit and are no dead letters yet, by their place, and why. */
  misfits: ReadonlyMap<number, string>;
}

export function createSink(tools: SinkTools): Sink {
  const { inserter, tables, log, createEventsTable, maker } = tools;
  const progressOf = new WeakMap<Batch, Progress>();
  /** INSERTs stored since the start, by table. */
  const storedOf = new Map<string, number>();
  const sizes = new Sizes();
  const fitters = tools.fitting && { ...tools.fitting, ...(maker ? { maker } : {}) };
  const foreseen = new Foreseen();

  async function deliver(
    batch: Batch,
    signal: AbortSignal,
    attempt: Attempt = ALONE,
  ): Promise<Delivery> {
    const progress = progressOf.get(batch) ?? begun(batch, attempt.trail);
    progressOf.set(batch, progress);
    const delivery = await goOn(batch, progress, signal, attempt);
    // Until the next attempt the rows may be on disk only.
    progress.parts = null;
    if (progress.fitted !== null) {
      progress.fitted = null;
      progress.against = batch.fingerprint;
    }
    const open = delivery.kind === "transient" || delivery.kind === "table";
    return open && progress.unknown ? { ...delivery, unknown: true } : delivery;
  }

  /** @param trail of an earlier process. */
  function begun(batch: Batch, trail: readonly string[]): Progress {
    const earlier = restored(trail, batch.rows);
    const { rows, bytes } = tools.largest?.() ?? { rows: Infinity, bytes: Infinity };
    const fitting = batch.bytes > bytes ? Math.floor(batch.rows * bytes / batch.bytes) : Infinity;
    const cap = earlier?.cap ??
      Math.max(1, Math.min(batch.rows, rows, fitting, sizes.of(batch.table)));
    return {
      plan: earlier?.plan ?? startPlan(batch.rows, cap),
      cap,
      unnoted: trail.length === 0 ? [first(batch.rows, cap)] : [],
      unknown: trail.length > 0,
      refused: 0,
      inserts: 0,
      schemaChanged: null,
      triedAgain: false,
      storedThen: null,
      keys: batch.keys ?? undefined,
      columns: null,
      known: null,
      grouped: trail.length > 0,
      types: null,
      parts: null,
      against: batch.fingerprint,
      fitted: null,
      misfits: NO_MISFITS,
    };
  }

  async function goOn(
    batch: Batch,
    progress: Progress,
    signal: AbortSignal,
    attempt: Attempt,
  ): Promise<Delivery> {
    if (!fits()) await name(batch, progress);
    let mayRename = batch.shape === "row";
    let mayCreate = batch.shape === "event" ? createEventsTable !== null : maker !== undefined;
    /** An INSERT of no rows was taken, although the columns cannot be had. */
    let probed = false;

    while (true) {
      const next = step(progress.plan);
      if (next.kind === "done") return finish(batch, progress, next.dead);
      if (signal.aborted) return { kind: "transient", code: 0, message: "given up" };
      const fitted = await fit(batch, progress);
      if (typeof fitted !== "boolean") return fitted;
      if (refuseMisfits(progress) || await group(batch, progress)) continue;
      if (!fitted && !probed) {
        const verdict = await inserter.insert(probeOf(batch), signal);
        if (verdict.kind === "stored") probed = true;
        else {
          const held = await missing(batch, progress, verdict, mayCreate);
          if (typeof held !== "string") return held;
          mayCreate = held === "fewer";
        }
        continue;
      }
      const [rows, omitted] = parted(next.rows, progress.misfits);
      await nameApart(batch, progress, rows);
      const request = requestOf(batch, progress, rows, tokenOf(batch.id, batch.rows, next.rows));
      if (next.kind === "sieve") {
        const good = await inserter.sieve(request, signal);
        // An aborted question is no answer: the plan would forget for good that it may ask.
        if (!signal.aborted) advance(progress, { is: "sieve", good });
        continue;
      }
      if (rows.length === 0) {
        advance(progress, { is: "view", ...unfit(omitted, MAYBE_STORED) });
        continue;
      }
      for (const line of progress.unnoted.splice(0)) await attempt.note(line);
      const table = planOf(tables.columns(batch.table));
      const blocks = progress.unknown ? 0 : blocksOf(table, request);
      if (!attempt.begin(blocks, table?.window ?? 0)) return { kind: "behind", blocks };
      progress.inserts++;
      const verdict = placed(await inserter.insert(request, signal), rows, next.rows);
      if (mayBeStored(verdict)) progress.unknown = true;
      if (verdict.kind === "table" && verdict.code === NO_TABLE && mayCreate) {
        mayCreate = false;
        if (batch.shape === "event") {
          if (await createEventsTable?.()) continue;
        } else {
          const made = await make(batch, progress);
          mayCreate = made === "fewer";
          if (typeof made !== "string") return { ...verdict, message: made.problem };
          if (made !== "never") continue;
        }
      }
      if (verdict.kind === "table" && mayRename && REFRESHING.has(verdict.code)) {
        mayRename = false;
        await tables.refresh(batch.table, verdict.code === NO_RIGHT);
        // A column that is gone is named no longer: what is left says which rows need it.
        if (GONE_COLUMN.has(verdict.code) && await name(batch, progress)) continue;
      }
      if (verdict.kind === "table" && verdict.view !== undefined) {
        const bad = await indigestible(batch, progress, rows, request, {
          ...verdict,
          view: verdict.view,
        }, signal);
        if (bad !== null) {
          const { message } = verdict;
          const not = unfit(omitted, MAYBE_STORED);
          advance(progress, {
            is: "view",
            bad: [...bad, ...not.bad],
            said: saidOf(verdict),
            ...(not.bad.length > 0 ? { each: [...bad.map(() => message), ...not.each] } : {}),
          });
          continue;
        }
      }
      if (verdict.kind === "stored") {
        storedOf.set(batch.table, (storedOf.get(batch.table) ?? 0) + 1);
        sizes.stored(batch.table, rows.length);
        if (omitted.length > 0) {
          advance(progress, { is: "view", ...unfit(omitted, MAYBE_STORED) });
          continue;
        }
      }
      const held = await take(batch, progress, verdict, rows.length);
      if (held !== null) return held;
    }
  }

  /** Whether its values are held against their columns. */
  function fits(): boolean {
    return (tools.fitting?.judge() ?? null) !== null;
  }

  /**
   * Holds the rows against their columns as they are at this moment, unless they were held against these,
   * and decides which the INSERT names.
   * @returns false: the columns cannot be had. Events then go as they are.
   */
  async function fit(batch: Batch, progress: Progress): Promise<boolean | Delivery> {
    if (!fits()) return true;
    const fitted = await fitting(batch, progress.against, fitters!, foreseen);
    if (fitted.kind === "held") return { kind: "table", code: 0, message: fitted.problem };
    if (fitted.kind === "unseen") {
      progress.columns = progress.types = progress.known = null;
      return batch.shape === "event";
    }
    const { columns } = fitted;
    progress.known = columns;
    const types = batch.shape === "event" ? tools.fitting!.eventTypes(columns) : null;
    if (batch.fingerprint !== null && (batch.shape === "row" || types !== null)) {
      progress.schemaChanged = columns.fingerprint !== batch.fingerprint;
    }
    if (progress.against !== columns.fingerprint) {
      const judged = fitted.kind === "judged" ? fitted : FITTING;
      progress.against = columns.fingerprint;
      progress.fitted = judged.body;
      progress.parts = null;
      progress.keys = judged.keys ?? progress.keys;
      progress.misfits = new Map(judged.misfits.map(({ index, problem }) => [index, problem]));
    }
    progress.types = types;
    if (batch.shape === "event") return true;
    if (progress.keys === undefined) progress.keys = await keysIn(batch.body);
    progress.columns = namedColumns(columns, progress.keys);
    return true;
  }

  /**
   * Rows that do not fit are not sent. While the next INSERT may be stored already, it goes under its token,
   * without them: only the same token tells.
   */
  function refuseMisfits(progress: Progress): boolean {
    const { misfits } = progress;
    if (misfits.size === 0 || progress.unknown) return false;
    progress.misfits = NO_MISFITS;
    const [, bad] = parted(undecided(progress.plan), misfits);
    if (bad.length > 0) advance(progress, { is: "unfit", ...unfit(bad) });
    return bad.length > 0;
  }

  /**
   * Rows that would get another's DEFAULT go apart from it, where the server confuses them. Returns whether they do.
   */
  async function group(batch: Batch, progress: Progress): Promise<boolean> {
    const { known, grouped } = progress;
    if (grouped || known === null) return false;
    progress.grouped = true;
    const plan = planOf(known);
    const columns = plan === null || batch.shape === "event" ? [] : apartBy(plan);
    if (columns.length === 0 || progress.keys?.isDisjointFrom(new Set(columns))) return false;
    // To an old server `null` is a value, if not the one that is meant.
    const nulls = known.columns.filter(({ type }) => known.old === true || /Nullable\(/.test(type))
      .map(({ name }) => name);
    const groups = await groupsOf(progress.fitted ?? batch.body, columns, new Set(nulls));
    if (groups === null) return false;
    advance(progress, { is: "apart", groups });
    return true;
  }

  /** The INSERT of rows that go apart names the columns that these have. */
  async function nameApart(batch: Batch, progress: Progress, rows: Uint32Array): Promise<void> {
    const { known, plan: { groups } } = progress;
    if (groups === null || known === null) return;
    progress.columns = namedColumns(known, await keysIn(requestOf(batch, progress, rows).body));
  }

  /** An INSERT of no rows was not taken: what that means for the batch, or how it goes on. */
  async function missing(
    batch: Batch,
    progress: Progress,
    verdict: Exclude<Verdict, { kind: "stored" }>,
    mayCreate: boolean,
  ): Promise<Delivery | "made" | "fewer"> {
    const { code, message } = verdict;
    if (verdict.kind === "transient") return { ...verdict, unknown: false };
    if (verdict.kind === "table" && code === NO_TABLE && mayCreate) {
      const made = await make(batch, progress);
      if (typeof made !== "string") return { kind: "table", code, message: made.problem };
      if (made !== "never") return made;
    }
    return { kind: "table", code, message };
  }

  /** Decides which columns the INSERTs name. Returns whether these are others than before. */
  async function name(batch: Batch, progress: Progress): Promise<boolean> {
    if (batch.shape === "event") return false;
    const before = progress.columns;
    const known = await tables.lookUp(batch.table, LOOK_UP_MS);
    if (progress.keys === undefined) progress.keys = await keysIn(batch.body);
    progress.known = typeof known === "string" ? null : known;
    progress.columns = typeof known === "string" ? null : namedColumns(known, progress.keys);
    return progress.columns?.join("\0") !== before?.join("\0");
  }

  /** Something happened to the last step: what comes next goes under a token of its own. */
  function advance(progress: Progress, event: Event): void {
    progress.plan = after(progress.plan, event);
    progress.unnoted.push(append(event));
    if (event.is === "sieve" || event.is === "no sieve") return;
    progress.unknown = false;
    progress.refused = 0;
  }

  /**
   * The table of rows that were taken unseen is made of them. Rows of which none can be made are sent no more.
   * @returns `never`: nothing makes it. `fewer`: others of its rows may.
   */
  async function make(
    batch: Batch,
    progress: Progress,
  ): Promise<"made" | "fewer" | "never" | { readonly problem: string }> {
    if (maker?.makes(batch.table) !== true) return "never";
    await tables.refresh(batch.table);
    const whole = join(batch.body);
    const offsets = lineOffsets(batch.body, batch.rows);
    const bad: Misfit[] = [];
    let left = [undecided(progress.plan)];
    let said = "";
    for (let tries = 0; tries < MOST_MAKES && left.length > 0; tries++) {
      const rows = left.shift()!;
      const made = await maker.make(batch.table, pick(whole, offsets, rows));
      if (made.ok) {
        await name(batch, progress);
        left = [];
        if (bad.length === 0) return "made";
        break;
      }
      const { problem, why, looked = rows.length, each = true } = made;
      if (why !== "rows") return { problem };
      said = problem;
      const seen = rows.subarray(0, looked);
      if (looked < rows.length) left.push(rows.subarray(looked));
      if (each) bad.push(...[...seen].map((index) => ({ index, problem })));
      else left.unshift(...halves(seen));
    }
    if (bad.length === 0) return { problem: said };
    advance(progress, { is: "unfit", ...unfit(bad.sort((a, b) => a.index - b.index)) });
    return "fewer";
  }

  /** Columns for keys of rows that were taken unseen. Returns whether the table has them now. */
  async function extend(batch: Batch, progress: Progress): Promise<boolean> {
    if (maker?.unknownKeys(batch.table) !== "column") return false;
    const made = await maker.extend(batch.table, null, join(batch.body));
    return made.ok && await name(batch, progress);
  }

  /**
   * A view of the table failed; the table itself has all of the piece. The view is asked which rows it
   * cannot digest, and the others are sent under the same token: the table and the views that have them
   * take nothing twice, the one that failed takes what it can.
   * @returns the rows that it cannot, in the batch; null: nothing is known, or it fails for all of them.
   */
  async function indigestible(
    batch: Batch,
    progress: Progress,
    piece: Uint32Array,
    request: InsertRequest,
    first: ViewFailure,
    signal: AbortSignal,
  ): Promise<readonly number[] | null> {
    const columns = await tables.refresh(batch.table);
    if (typeof columns === "string" || !((windowOf(columns) ?? 0) > 0)) return null;
    let left = piece;
    const bad: number[] = [];
    let failure = first;
    for (let views = 0; views < MOST_VIEWS; views++) {
      const judge = await inserter.judgeOf?.(batch.table, failure.view, failure.code, signal) ??
        null;
      if (judge === null) return null;
      const found = await searched(left, (rows) => judge(requestOf(batch, progress, rows), signal));
      if (found === null || found.length === 0) return null;
      bad.push(...found);
      const isBad = new Set(bad);
      left = piece.filter((row) => !isBad.has(row));
      if (left.length === 0) {
        // Its view may be broken altogether, unless it digests what others bring meanwhile.
        const stored = storedOf.get(batch.table) ?? 0;
        const others = progress.storedThen !== null && stored > progress.storedThen;
        progress.storedThen ??= stored;
        return others ? bad : null;
      }
      progress.inserts++;
      const again = { ...requestOf(batch, progress, left), token: request.token };
      const verdict = await inserter.insert(again, signal);
      if (verdict.kind === "stored") return bad;
      if (verdict.kind !== "table" || verdict.view === undefined) return null;
      failure = { ...verdict, view: verdict.view };
    }
    return null;
  }

  /** Brings the plan on by one verdict; a delivery ends the attempt instead. */
  async function take(
    batch: Batch,
    progress: Progress,
    verdict: Verdict,
    rows: number,
  ): Promise<Delivery | null> {
    switch (verdict.kind) {
      case "stored":
        advance(progress, { is: "stored" });
        return null;
      case "row": {
        const { fingerprint } = batch;
        if (isUnknownField(verdict) && fingerprint === null && await extend(batch, progress)) {
          return null;
        }
        const doubtful = isUnknownField(verdict) && !progress.triedAgain;
        if (doubtful || fingerprint !== null && progress.schemaChanged === null) {
          const columns = await tables.refresh(batch.table);
          if (columns === "unknown" && fingerprint !== null) {
            return {
              kind: "transient",
              code: 0,
              message: `the columns of ${batch.table} cannot be asked`,
            };
          }
          progress.schemaChanged = fingerprint !== null &&
            (typeof columns === "string" || columns.fingerprint !== fingerprint);
          const renamed = await name(batch, progress);
          if (doubtful && !progress.schemaChanged) {
            progress.triedAgain = true;
            // Without a fingerprint nothing but another INSERT could say something else.
            if (renamed || fingerprint !== null) return null;
          }
        }
        if (progress.schemaChanged) {
          // A late row or two that name it are their own trouble; most rows needing it is the table's.
          if (isUnknownField(verdict) && isNeeded(batch, verdict)) return hold(progress, verdict);
          advance(progress, { is: "no sieve" });
        }
        advance(progress, { is: "row", row: verdict.row, said: saidOf(verdict) });
        if (progress.schemaChanged) advance(progress, { is: "no sieve" });
        return null;
      }
      case "split":
        sizes.refused(batch.table, rows);
        if (rows === 1 && verdict.code === 241 && mayPart(batch, progress, verdict)) {
          return tooLarge(batch, progress, verdict);
        }
        if (rows === 1 || !mayPart(batch, progress, verdict)) {
          const kind = verdict.code === 241 || verdict.code === 159 || rows > 1
            ? "transient"
            : "table";
          return { kind, code: verdict.code, message: verdict.message };
        }
        advance(progress, { is: "split" });
        return null;
      case "unknown-setting":
        return { kind: "table", code: verdict.code, message: verdict.message };
      case "transient":
        if (mayBeStored(verdict)) progress.refused = 0;
        return verdict;
      case "table":
        return verdict;
    }
  }

  /**
   * One row needs more memory than a query may have. The others go first; when it is too much again, and
   * others have passed meanwhile, it is that row's fault and not the limit's.
   */
  function tooLarge(batch: Batch, progress: Progress, verdict: Trouble): Delivery | null {
    const { putOff, passed } = progress.plan;
    const next = step(progress.plan);
    sizes.forget(batch.table);
    if (next.kind === "insert" && !putOff.includes(next.rows[0]!)) {
      advance(progress, { is: "put off" });
      return null;
    }
    const stored = storedOf.get(batch.table) ?? 0;
    const others = passed || progress.storedThen !== null && stored > progress.storedThen;
    progress.storedThen ??= stored;
    if (!others) return { kind: "table", code: verdict.code, message: verdict.message };
    advance(progress, { is: "no sieve" });
    advance(progress, { is: "row", row: 1, said: saidOf(verdict) });
    return null;
  }

  /**
   * Whether a piece that is too large may go in parts, under other tokens: not while it may be stored. What
   * is refused for its size again and again was refused for it the first time too, unless it ran out of time
   * while a view was filled: then the table has it.
   */
  function mayPart(
    batch: Batch,
    progress: Progress,
    verdict: Verdict & { kind: "split" },
  ): boolean {
    if (!progress.unknown) return true;
    const table = planOf(tables.columns(batch.table));
    // No token is remembered there.
    if (table?.window === 0) return true;
    progress.refused++;
    if (verdict.unknown === true && table?.views !== false) return false;
    return !TIMELY.has(verdict.code) || progress.refused >= CERTAIN;
  }

  function finish(batch: Batch, progress: Progress, dead: readonly DeadRow[]): Delivery {
    const worst = dead[0];
    if (progress.schemaChanged && worst !== undefined && dead.length === batch.rows) {
      // Nothing of it is stored, so it may start over when the table is probed.
      progress.plan = startPlan(batch.rows, progress.cap);
      progress.against = batch.fingerprint;
      progress.unnoted.push(restart());
      progress.schemaChanged = null;
      progress.triedAgain = false;
      progress.grouped = false;
      return {
        kind: "table",
        code: worst.code,
        message: `the columns changed and no row fits them: ${worst.message}`,
      };
    }
    progressOf.delete(batch);
    if (dead.length > 0) {
      log.debug("isolated bad rows", {
        table: batch.table,
        batch: batch.id,
        rows: batch.rows,
        dead: dead.length,
        inserts: progress.inserts,
      });
    }
    return { kind: "settled", dead, inserts: progress.inserts };
  }

  function giveUp(batch: Batch, trail: readonly string[], message: string): readonly DeadRow[] {
    const { plan, unknown } = progressOf.get(batch) ?? begun(batch, trail);
    progressOf.delete(batch);
    return unstored(plan, unknown, message);
  }

  return {
    deliver,
    expect(batches) {
      if (fits()) foreseen.ask(batches, fitters!);
    },
    giveUp,
  };
}

/** For the first answer about a table. */
const LOOK_UP_MS = 2_000;
/** A column that an INSERT names is not there, or takes no values any more. */
const GONE_COLUMN: ReadonlySet<number> = new Set([16, 44]);
const NO_RIGHT = 497;
const NO_TABLE = 60;
/** What contradicts the plan. */
const REFRESHING: ReadonlySet<number> = new Set([...GONE_COLUMN, NO_RIGHT]);

/** An attempt of which nothing is known and that nothing waits for. */
const ALONE: Attempt = { trail: [], note: () => Promise.resolve(), begin: () => true };

/** Refusals for size that another time need not bring: memory, time. */
const TIMELY: ReadonlySet<number> = new Set([159, 241]);
/** As many of them in a row. */
const CERTAIN = 3;

/** Rows all of which fit as they are. */
const FITTING = { body: null, keys: null, misfits: [] } as const;
const NO_MISFITS: ReadonlyMap<number, string> = new Map();
const MAYBE_STORED =
  "; it was sent before the column changed, and may be in the table all the same";

/** Some rows without those that do not fit, and these. */
function parted(
  rows: Uint32Array,
  misfits: ReadonlyMap<number, string>,
): readonly [Uint32Array, readonly Misfit[]] {
  if (misfits.size === 0) return [rows, []];
  const bad: Misfit[] = [];
  const good = rows.filter((index) => {
    const problem = misfits.get(index);
    if (problem !== undefined) bad.push({ index, problem });
    return problem === undefined;
  });
  return [good, bad];
}

/** What happened to rows that do not fit. */
function unfit(misfits: readonly Misfit[], more = "") {
  const each = misfits.map(({ problem }) => problem + more);
  const said = { code: OWN_WORD, message: each[0] ?? "" };
  return { bad: misfits.map(({ index }) => index), said, each };
}

/** Attempts to make a table of some rows of one batch, after which those that are known to fail are dead. */
const MOST_MAKES = 100;

function halves(rows: Uint32Array): [Uint32Array, Uint32Array] {
  const middle = rows.length >> 1;
  return [rows.subarray(0, middle), rows.subarray(middle)];
}

/** A verdict on some rows of a piece, as one on the piece. */
function placed(verdict: Verdict, rows: Uint32Array, piece: Uint32Array): Verdict {
  if (verdict.kind !== "row" || verdict.row === null || rows.length === piece.length) {
    return verdict;
  }
  const at = rows[verdict.row - 1];
  return { ...verdict, row: at === undefined ? null : piece.indexOf(at) + 1 };
}

/** Tells whether the table takes rows, and stores none. */
function probeOf({ table, shape, id }: Batch): InsertRequest {
  return { table, shape, columns: null, body: [], rows: 0, token: id };
}

function saidOf({ code, message }: Trouble): { readonly code: number; readonly message: string } {
  return { code, message };
}

type ViewFailure = Trouble & { readonly view: ViewName };

/** Views of one table that fail for rows of one batch. */
const MOST_VIEWS = 8;
/** Questions about one batch: by halving, some twenty bad rows of ten thousand. */
const MOST_QUESTIONS = 600;
/** Rows asked about one by one that are bad without exception: it fails for all. */
const ALL_BAD = 16;

/** The rows that are bad, found by halving; null where that cannot be told, or takes too long. */
async function searched(
  rows: Uint32Array,
  digests: (rows: Uint32Array) => Promise<boolean | null>,
): Promise<readonly number[] | null> {
  const bad: number[] = [];
  const left = [rows];
  let good = false;
  for (let asked = 0; left.length > 0; asked++) {
    if (asked >= MOST_QUESTIONS || bad.length >= ALL_BAD && !good) return null;
    const some = left.pop()!;
    const fine = await digests(some);
    if (fine === null) return null;
    good ||= fine;
    if (fine) continue;
    if (some.length === 1) bad.push(some[0]!);
    else {
      const middle = some.length >> 1;
      left.push(some.subarray(middle), some.subarray(0, middle));
    }
  }
  return bad;
}

/** The schema may change back: the next attempt asks for the columns again. */
function hold(progress: Progress, trouble: Trouble): Delivery {
  progress.schemaChanged = null;
  progress.triedAgain = false;
  return { kind: "table", code: trouble.code, message: trouble.message };
}

function isUnknownField(trouble: Trouble): boolean {
  return trouble.code === 117 && /unknown field/i.test(trouble.message);
}

/** Whether half of the rows or more give the field that is unknown; also where that cannot be told. */
function isNeeded(batch: Batch, trouble: Trouble): boolean {
  // 18.16 goes on with the row's number.
  const field = /JSONEachRow format: (.+?)(?::? \(at row \d+\).*)?$/s.exec(trouble.message)?.[1];
  if (field === undefined) return true;
  let giving = 0;
  for (const line of new TextDecoder().decode(join(batch.body)).trimEnd().split("\n")) {
    try {
      if (Object.hasOwn(JSON.parse(line), field)) giving++;
    } catch {
      return true;
    }
  }
  // A name that no row gives was not read aright.
  return giving === 0 || giving * 2 >= batch.rows;
}

function requestOf(
  batch: Batch,
  progress: Progress,
  rows: Uint32Array,
  token = tokenOf(batch.id, batch.rows, rows),
): InsertRequest {
  const all = rows.length === batch.rows;
  const body = progress.fitted ?? batch.body;
  if (!all) {
    progress.parts ??= { whole: join(body), offsets: lineOffsets(body, batch.rows) };
  }
  const { parts } = progress;
  return {
    table: batch.table,
    shape: batch.shape,
    columns: progress.columns,
    types: progress.types,
    body: all || parts === null ? body : [pick(parts.whole, parts.offsets, rows)],
    rows: rows.length,
    token,
  };
}
