/**
 * The dead letters of a running collector, as HTTP asks for them. Reading needs no lock; of replays and
 * purges, which change files, one goes on at a time.
 */

import type { DeadLetters, Log, Replaying } from "../contracts.ts";
import { done, failed, type Result } from "../kernel/result.ts";
import { InTurn, Underway } from "../kernel/time.ts";
import { letterId, writeLetter } from "./letter.ts";
import { type ReplayOptions, type ReplayRun, replayTable, Totals } from "./replay.ts";
import { asOf, identityOf, LetterStore, matches } from "./store.ts";
import type { LetterWriter } from "./writer.ts";

export interface DeadLettersOptions extends Omit<ReplayOptions, "store"> {
  readonly writer: Pick<LetterWriter, "between">;
  /** Why no letter may be changed yet, or null. */
  readonly unready: () => string | null;
  readonly log: Log;
}

/** One replay takes so long at most, and the answer that waits for it. */
const WITHIN_MS = 25_000;
const REASONS = 10;
const STOPPING = "the collector is stopping";
const BUSY = "a replay or a purge is under way; try again when it has ended";

/** @returns with `close`: a replay under way ends with the rows that it has given; then it resolves. */
export function createDeadLetters(
  options: DeadLettersOptions,
): DeadLetters & { close(): Promise<void> } {
  const { folder, clock, log, writer } = options;
  const store = new LetterStore(options);
  const reading = new InTurn();
  const changes = new Underway();
  let closed = false;
  let changing = false;

  async function alone<T>(work: () => Promise<T>): Promise<Result<T>> {
    const problem = closed ? STOPPING : changing ? BUSY : options.unready();
    if (problem !== null) return failed(problem);
    changing = true;
    try {
      return done(await changes.add(work()));
    } finally {
      changing = false;
    }
  }

  /** From here on the writer does not append to the letters that are there now. */
  async function setAside(wanted: string | null): Promise<readonly string[]> {
    const tables = (await store.tables()).filter((table) => wanted === null || table === wanted);
    for (const table of tables) await writer.between(table, () => store.setAside(table));
    return tables;
  }

  async function replay(
    wanted: Parameters<DeadLetters["replay"]>[0],
    signal: AbortSignal,
  ): Promise<Replaying> {
    const ids = wanted.ids === null ? null : new Set(wanted.ids);
    const totals = new Totals();
    const untilMs = clock.monotonicMs() + WITHIN_MS;
    const run: ReplayRun = {
      wanted: (letter) => (ids === null || ids.has(letterId(letter))) && matches(letter, wanted),
      over: () =>
        closed
          ? STOPPING
          : signal.aborted
          ? "the answer is not waited for any more"
          : clock.monotonicMs() >= untilMs
          ? `it has taken ${WITHIN_MS / 1000} s`
          : null,
      untilMs,
      signal,
      totals,
    };
    for (const table of await setAside(wanted.table)) {
      if (!await replayTable(table, { ...options, store }, run)) break;
    }
    const { stored, dead, left, retryAfterS } = totals;
    log.info("dead letters replayed", { stored, dead, left });
    const most = [...totals.reasons].sort(([, m], [, n]) => n - m).slice(0, REASONS);
    const reasons = most.map(([reason, letters]) => ({ reason, letters }));
    const problems = [...totals.problems].slice(0, REASONS);
    return { stored, dead, left, reasons, problems, retryAfterS: left > 0 ? retryAfterS : null };
  }

  return {
    folder: () => identityOf(folder),
    // One at a time: what is read for an answer is held until it is given.
    newest: (table, limit) => reading.run(() => store.newest(table, limit)),
    letter: (table, id) => reading.run(() => store.letter(table, id)),
    async *lines(wanted, limit) {
      let left = limit;
      for await (const letter of store.newestFirst(wanted)) {
        yield writeLetter(letter);
        if (--left <= 0) return;
      }
    },
    tables: (wanted) =>
      reading.run(async () => {
        const tables = await store.summaries(wanted);
        return { asOf: asOf(tables, wanted.beforeMs ?? clock.nowMs()), tables };
      }),
    replay: (wanted, signal) => alone(() => replay(wanted, signal)),
    purge: (wanted, damaged) =>
      alone(async () => {
        await setAside(wanted.table);
        const purged = await store.purge(wanted, damaged);
        log.info("dead letters purged", { letters: purged.letters, damaged: purged.damaged });
        return purged;
      }),
    async close() {
      closed = true;
      await changes.idle();
    },
  };
}
