/**
 * One thing that `shishi check` looked at, and how it is told: a line for people, or a line of JSON.
 * Every text may hold what a server said, so nothing in it may start a line of its own.
 */

import { styleText } from "node:util";

/** `wrong` makes the exit code 1; a `warning` does not. */
export type State = "ok" | "warning" | "wrong";

export interface Finding {
  /** What was looked at: `clickhouse http://host:8123/default`. */
  readonly what: string;
  readonly state: State;
  /** How it is. */
  readonly text: string;
  /** What to do about it. */
  readonly todo?: string;
}

/** Something to look at: it answers within its own time limits and never rejects. */
export type Look = () => Promise<readonly Finding[]>;

/** Findings about one thing. */
export function about(what: string) {
  const say = (state: State) => (text: string, todo?: string): Finding => ({
    what,
    state,
    text,
    ...(todo === undefined ? {} : { todo }),
  });
  return { ok: say("ok"), warning: say("warning"), wrong: say("wrong") };
}

const MARK = { ok: ["✓", "green"], warning: ["!", "yellow"], wrong: ["✗", "red"] } as const;

/** `✗ table t on http://host:8123/default: not there → create it`. */
export function lineOf({ what, state, text, todo }: Finding, color: boolean): string {
  const [mark, paint] = MARK[state];
  const shown = color ? styleText(paint, mark, { validateStream: false }) : mark;
  return `${shown} ${oneLine(`${what}: ${text}${todo === undefined ? "" : ` → ${todo}`}`)}`;
}

/** The same as JSON, in one line. */
export function jsonOf({ what, state, text, todo }: Finding): string {
  return JSON.stringify({ check: what, state, text, ...(todo === undefined ? {} : { todo }) });
}

function oneLine(text: string): string {
  return text.replace(/[\p{Cc}\u2028\u2029]+/gu, " ");
}
