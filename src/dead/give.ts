/**
 * Gives letters to a running collector: one write, repeated under the same id until their fate is
 * known or the time is over. `Shishi-Replay: TABLE/ID` makes the collector put exactly these rows
 * into a batch of their own with that id, and answer a repeated request from what became of it. How
 * the write gets there is the caller's: over the network, or within the process.
 */

import { Buffer } from "node:buffer";
import type { Clock } from "../contracts.ts";
import type { Letter } from "./letter.ts";

/** What became of letters that were given to the collector together. */
export type Given =
  /** Every row is in ClickHouse, but for `dead` of them, which are letters again. */
  | { readonly kind: "settled"; readonly dead: number }
  /** None was taken, because of these; the first hundred are named. */
  | {
    readonly kind: "refused";
    readonly errors: readonly { readonly index: number; readonly error: string }[];
    readonly problem: string;
  }
  /** None was taken: too many bytes for one request. */
  | { readonly kind: "large"; readonly problem: string }
  /** Not sent, or none was taken. `table`: others may do better. */
  | { readonly kind: "unsent"; readonly of: "table" | "collector"; readonly problem: string }
  /** Taken perhaps; to be sent again under the same id. */
  | { readonly kind: "unknown"; readonly problem: string };

/** One write of rows: a POST, wherever it goes. */
export interface Write {
  /** `/events` or `/events/TABLE`. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
}

/** `sent`: the write may have reached somebody. */
export type Written = WriteAnswer | { readonly error: string; readonly sent: boolean };

export interface WriteAnswer {
  readonly status: number;
  /** By lower case name. */
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
}

export interface GiveOptions {
  /** Never rejects. */
  readonly write: (write: Write) => Promise<Written>;
  /** Who gets them, for people. */
  readonly to: string;
  /** For one call, waits and repetitions included. */
  readonly timeoutMs: number;
  readonly clock: Clock;
  /** Told why it takes longer, before each wait. */
  readonly waiting: (why: string) => void;
}

/** What the collector is asked to wait for the INSERT, at most. */
const LONGEST_WAIT_S = 30;
const PAUSE_MS = 1_000;
const LONGEST_PAUSE_S = 30;
const BUSY = [408, 429, 500, 502, 503, 504];

/**
 * Never rejects.
 * @param letters of one table and one shape. @param id from `replayId`.
 * @param again an earlier call may have been taken.
 */
export async function giveLetters(
  options: GiveOptions,
  letters: readonly Letter[],
  id: string,
  again: boolean,
): Promise<Given> {
  const { clock, timeoutMs, waiting, to } = options;
  const { table, shape } = letters[0]!;
  const replay = `${table}/${id}`;
  const path = shape === "event" ? "/events" : `/events/${table}`;
  const body = Buffer.from(letters.map(({ row }) => `${row}\n`).join(""));
  const untilMs = clock.monotonicMs() + timeoutMs;
  // Once true, a refusal does not mean that nothing was taken: an earlier try may have been.
  let perhaps = false;
  while (true) {
    const leftS = Math.max(1, Math.ceil((untilMs - clock.monotonicMs()) / 1000));
    const headers = {
      "Content-Type": "application/x-ndjson",
      "Prefer": `handling=strict, wait=${Math.min(LONGEST_WAIT_S, leftS)}`,
      "Shishi-Replay": replay,
    };
    const answer = await options.write({ path, headers, body });
    let problem: string;
    let pauseMs = PAUSE_MS;
    if ("error" in answer) {
      problem = `${to}: ${answer.error}`;
      if (!answer.sent && !perhaps) return { kind: "unsent", of: "collector", problem };
      perhaps ||= answer.sent;
    } else if (answer.status === 200) {
      return { kind: "settled", dead: Number(bodyOf(answer).dead ?? 0) };
    } else if (answer.status === 202) {
      perhaps = true;
      problem = "the collector has the rows, ClickHouse has not taken them yet";
      if (answer.headers["shishi-replay"] !== replay) {
        return { kind: "unknown", problem: `${problem}, and it cannot be asked again` };
      }
      // It has waited already.
      pauseMs = 0;
    } else if (BUSY.includes(answer.status)) {
      problem = `the collector answers ${told(answer)}`;
      // These two mean that nothing was taken; of the others nobody knows.
      perhaps ||= answer.status !== 429 && answer.status !== 503;
      const asked = Number(answer.headers["retry-after"] ?? 1);
      pauseMs = 1000 * Math.min(LONGEST_PAUSE_S, Number.isFinite(asked) ? asked : 1);
    } else {
      const refused = refusal(answer, to);
      // Somebody between us, or one who has not looked up the id, cannot know what was taken before.
      const knows = answer.headers["shishi-replay"] === replay;
      return (perhaps || again) && !knows ? { kind: "unknown", problem: refused.problem } : refused;
    }
    if (clock.monotonicMs() + pauseMs >= untilMs) {
      return perhaps
        ? { kind: "unknown", problem }
        : { kind: "unsent", of: "collector", problem: `${problem}, for ${timeoutMs / 1000} s` };
    }
    waiting(problem);
    if (pauseMs > 0) await new Promise<void>((resolve) => void clock.after(pauseMs, resolve));
  }
}

function refusal(answer: WriteAnswer, to: string): Exclude<Given, { kind: "settled" }> {
  const problem = `${to} answers ${told(answer)}`;
  const { errors } = bodyOf(answer);
  if (answer.status === 400 && Array.isArray(errors) && errors.length > 0) {
    return { kind: "refused", errors, problem };
  }
  if (answer.status === 413) return { kind: "large", problem };
  const table = answer.status === 404 || answer.status === 400;
  return { kind: "unsent", of: table ? "table" : "collector", problem };
}

// deno-lint-ignore no-explicit-any
function bodyOf(answer: WriteAnswer): any {
  try {
    return JSON.parse(answer.text) ?? {};
  } catch {
    return {};
  }
}

function told(answer: WriteAnswer): string {
  const { error } = bodyOf(answer);
  return typeof error === "string" ? `${answer.status}: ${error}` : String(answer.status);
}
