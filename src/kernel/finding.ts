/**
 * One thing that was looked at, and how it is: what the rooms answer when `shishi check` asks what is
 * wrong with their part of the world.
 */

/** `wrong` makes the exit code 1; a `warning` does not. */
type State = "ok" | "warning" | "wrong";

export interface Finding {
  /** What was looked at: `clickhouse http://host:8123/default`. */
  readonly what: string;
  readonly state: State;
  /** What was found, as a sentence without a full stop. */
  readonly text: string;
  /** What to do about it. */
  readonly todo?: string;
}

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
