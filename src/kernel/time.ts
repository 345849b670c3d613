/**
 * Time: the clock that every room is handed, and the few ways to wait that all of them share. Nothing
 * but `systemClock` reads the system's clock, so a test that owns the `Clock` owns every wait. A promise that
 * is settled from outside is the language's own `Promise.withResolvers()`.
 */

/** Time and chance, so that tests can own both. */
export interface Clock {
  /** Wall clock, epoch milliseconds. */
  nowMs(): number;
  /** Never goes back; for durations. Milliseconds, fractional. */
  monotonicMs(): number;
  /** Calls `task` once after `delayMs`; the answer cancels it. */
  after(delayMs: number, task: () => void): () => void;
  /** Uniform in [0, 1). */
  random(): number;
}

/** Longest delay that timers take; beyond it they would fire at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** The real one. Rooms are handed a `Clock`: `runtime/`, `collector.ts` and the commands alone take this. */
export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  after(delayMs, task) {
    const timer = setTimeout(task, Math.min(Math.max(delayMs, 0), MAX_TIMER_MS));
    return () => clearTimeout(timer);
  },
  random: () => Math.random(),
};

type Timer = Pick<Clock, "after">;

/** Resolves after `ms`, or as soon as `signal` is aborted. Never rejects. */
export function sleep(clock: Timer, ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const end = (): void => {
      cancel();
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const cancel = clock.after(ms, end);
    signal?.addEventListener("abort", end, { once: true });
  });
}

/**
 * Lets what waits have its turn before long work goes on. A timer and no immediate: a runtime that always has
 * something to do at once looks at its sockets only every 61st time, and others wait for as many slices.
 */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

/**
 * What `work` resolves with, or `late` when `ms` pass first. The work itself goes on: its
 * caller ends it. Rejects as the work does, as long as it is waited for.
 */
export function within<T, L>(clock: Timer, ms: number, work: Promise<T>, late: L): Promise<T | L> {
  return new Promise((resolve, reject) => {
    const cancel = clock.after(ms, () => resolve(late));
    work.then(resolve, reject).finally(cancel);
  });
}

/**
 * Runs `task` after `ms`, and again `ms` after each run has ended. A task that throws ends the series:
 * tasks tell their own failures.
 * @returns what ends it; a run under way goes on.
 */
export function repeat(clock: Timer, ms: number, task: () => unknown): () => void {
  let ended = false;
  let cancel = clock.after(ms, run);
  function run(): void {
    void Promise.resolve(task()).then(() => {
      if (!ended) cancel = clock.after(ms, run);
    });
  }
  return () => {
    ended = true;
    cancel();
  };
}

/**
 * An end that may come while other things are waited for, such as the loss of a connection. A `Promise.race`
 * with a promise that stays pending keeps what every race came to, for as long as that promise lives: a thousand
 * messages of 1 MB were 1 GB (measured, on both runtimes). Here nothing is kept of a race that is over.
 */
export class Ending {
  #end: { readonly error: unknown } | null = null;
  readonly #racing = new Set<(error: unknown) => void>();

  /** Once; later ones have no effect. */
  end(error: unknown): void {
    if (this.#end !== null) return;
    this.#end = { error };
    for (const reject of this.#racing) reject(error);
    this.#racing.clear();
  }

  /** What `work` comes to; rejects with the error of the end where that comes first. The work itself goes on. */
  race<T>(work: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const over = () => this.#racing.delete(reject);
      work.then(resolve, reject).then(over, over);
      if (this.#end === null) this.#racing.add(reject);
      else reject(this.#end.error);
    });
  }
}

/** Work that is going on, so that an end can wait for it. */
export class Underway {
  readonly #works = new Set<Promise<unknown>>();

  /** @returns what the work returns. */
  async add<T>(work: Promise<T>): Promise<T> {
    this.#works.add(work);
    try {
      return await work;
    } finally {
      this.#works.delete(work);
    }
  }

  /** Resolves when nothing is going on; what begins meanwhile is waited for too. Never rejects. */
  async idle(): Promise<void> {
    while (this.#works.size > 0) await Promise.allSettled(this.#works);
  }
}

/** Works that must not overlap: each begins when those before it have ended. */
export class InTurn {
  #last: Promise<unknown> = Promise.resolve();

  /** @returns what the work returns. */
  run<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(work);
    this.#last = turn.catch(() => {});
    return turn;
  }
}

/** As `Promise.all`, but when it rejects nothing is going on any more: what was done can be undone. */
export async function allEnded(works: readonly Promise<unknown>[]): Promise<void> {
  await Promise.allSettled(works);
  await Promise.all(works);
}
