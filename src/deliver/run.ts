/**
 * Walks along some rows of which some are bad, a window of them at a time, without knowing how many
 * are bad. Where the server names the bad row, the rows before it are known to parse and wait in a
 * pool that goes in one INSERT at the end; where it does not, the window is halved until one row is
 * left. The window follows the distance between bad rows, so that among many bad rows an INSERT
 * carries few rows, and a batch is never uploaded again for each of them.
 */

/** What the server said about a row. */
export interface Refusal {
  readonly code: number;
  readonly message: string;
}

export interface Run {
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

export function startRun(rows: Uint32Array, window: number, alone = false): Run {
  return { rows, from: 0, taintedTo: 0, window, clean: 0, pool: null, alone };
}

/** The rows of the next INSERT: one at least. */
export function currentPiece(run: Run, cap: number): Uint32Array {
  const left = run.rows.length - run.from;
  const tainted = run.taintedTo - run.from;
  // All of a tainted stretch would fail for sure.
  const length = tainted > 1
    ? Math.min(Math.floor(tainted / 2), cap)
    : Math.min(tainted === 1 ? 1 : run.window, cap, left);
  return run.rows.subarray(run.from, run.from + length);
}

/** The current piece is stored. */
export function stored(run: Run, cap: number): Run {
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
export function refused(
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
export function restOf(run: Run): Uint32Array {
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
