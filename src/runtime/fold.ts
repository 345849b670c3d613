/**
 * Lines of the log that repeat, folded: the first is told at once, then one line a minute for as long
 * as more come, with how many there were and the last one's fields. Pure: times go in, lines come out.
 *
 * What is folded must not mislead or hide a thing:
 * - Warnings are alike when message and `LIKE` fields are: a table's retries, a client's bad rows.
 * - An error is alike only when every field is: it may be the one trace of a batch that is lost.
 * - Nothing else is folded. `info` tells that something has changed ("ClickHouse is there"), so what
 *   was kept back is told before it, and whatever comes after it is told as if for the first time.
 */

import type { LogFields } from "../contracts.ts";

export type LogLevel = "debug" | "info" | "warn" | "error";

export interface Line {
  readonly level: LogLevel;
  readonly message: string;
  readonly fields: LogFields;
  /** Stands for so many lines, of so long; the fields are those of the last. */
  readonly repeated?: { readonly times: number; readonly overMs: number };
}

const WINDOW_MS = 60_000;
/** Kinds of lines that are remembered. One more, and the oldest is told and forgotten. */
const MOST_KINDS = 200;
/** What tells one warning from another, beside its message. */
const LIKE = ["table", "code", "server", "file", "folder", "command", "subject"];

interface Kind {
  last: Line;
  /** Lines since `sinceMs` that were not told. */
  times: number;
  sinceMs: number;
}

export class Fold {
  /** In the order of `sinceMs`: a kind whose window begins anew goes to the end. */
  readonly #kinds = new Map<string, Kind>();

  /** @returns what is to be written now. */
  take(line: Line, nowMs: number): Line[] {
    if (line.level === "debug") return [line];
    if (line.level === "info") return [...this.flush(nowMs), line];
    const told = this.due(nowMs);
    const key = keyOf(line);
    const kind = this.#kinds.get(key);
    if (kind !== undefined) {
      kind.last = line;
      kind.times++;
      return told;
    }
    if (this.#kinds.size >= MOST_KINDS) {
      const [[oldest, { last, times, sinceMs }]] = this.#kinds as unknown as [[string, Kind]];
      this.#kinds.delete(oldest);
      told.push(...summary(last, times, nowMs - sinceMs));
    }
    this.#kinds.set(key, { last: line, times: 0, sinceMs: nowMs });
    return [...told, line];
  }

  /** Lines for the windows that have ended. What did not repeat within its window is forgotten. */
  due(nowMs: number): Line[] {
    const told: Line[] = [];
    for (const [key, kind] of this.#kinds) {
      const overMs = nowMs - kind.sinceMs;
      if (overMs < WINDOW_MS) break;
      told.push(...summary(kind.last, kind.times, overMs));
      this.#kinds.delete(key);
      if (kind.times > 0) this.#kinds.set(key, { ...kind, times: 0, sinceMs: nowMs });
    }
    return told;
  }

  /** When `due` has something to do; null while nothing is remembered. */
  nextMs(): number | null {
    for (const { sinceMs } of this.#kinds.values()) return sinceMs + WINDOW_MS;
    return null;
  }

  /** Everything that was not told, and a fresh start. */
  flush(nowMs: number): Line[] {
    const told = [...this.#kinds.values()].flatMap(({ last, times, sinceMs }) =>
      summary(last, times, nowMs - sinceMs)
    );
    this.#kinds.clear();
    return told;
  }
}

function keyOf({ level, message, fields }: Line): string {
  const alike = level === "error" ? fields : LIKE.map((name) => fields[name] ?? null);
  return JSON.stringify([level, message, alike]);
}

function summary(last: Line, times: number, overMs: number): Line[] {
  // One that was kept back is told as itself.
  if (times <= 1) return times === 0 ? [] : [last];
  return [{ ...last, repeated: { times, overMs } }];
}
