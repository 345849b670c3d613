/**
 * Gives letters to a running collector: one POST, repeated under the same id until their fate is
 * known or the time is over. `Shishi-Replay: TABLE/ID` makes the collector put exactly these rows
 * into a batch of their own with that id, and answer a repeated request from what became of it.
 *
 * By `node:https` and not by `fetch`: it trusts a certificate that it is given, on every runtime, and
 * never sends a body twice on its own.
 */

import { Buffer } from "node:buffer";
import { request as plain } from "node:http";
import { request as secure } from "node:https";
import { rootCertificates } from "node:tls";
import type { Letter } from "../batch/letter.ts";
import type { Clock } from "../contracts.ts";

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

export interface PostOptions {
  /** `http(s)://host:port`. */
  readonly url: string;
  /** Bearer token, or null. */
  readonly token: string | null;
  /** PEM certificates to trust besides the well-known ones. */
  readonly certificates: readonly string[];
  /** For one call, waits and repetitions included. */
  readonly timeoutMs: number;
  readonly clock: Clock;
  /** Told why it takes longer, before each wait. */
  readonly waiting: (why: string) => void;
}

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
}

/** What the collector is asked to wait for the INSERT, at most. */
const WAIT_S = 30;
/** More than the wait, for the body has to get there. */
const ANSWER_MS = 60_000;
const PAUSE_MS = 1_000;
const LONGEST_PAUSE_S = 30;
const MAX_ANSWER_LENGTH = 4 * 1024 * 1024;
const BUSY = [408, 429, 500, 502, 503, 504];

/**
 * Never rejects.
 * @param letters of one table and one shape. @param id from `replayId`.
 * @param again an earlier call may have been taken.
 */
export async function giveLetters(
  options: PostOptions,
  letters: readonly Letter[],
  id: string,
  again: boolean,
): Promise<Given> {
  const { clock, timeoutMs, waiting } = options;
  const { table, shape } = letters[0]!;
  const replay = `${table}/${id}`;
  const path = shape === "event" ? "/events" : `/events/${table}`;
  const body = Buffer.from(letters.map(({ row }) => `${row}\n`).join(""));
  const untilMs = clock.monotonicMs() + timeoutMs;
  // Once true, a refusal does not mean that nothing was taken: an earlier try may have been.
  let perhaps = false;
  while (true) {
    const answer = await post(options, path, replay, body);
    let problem: string;
    let pauseMs = PAUSE_MS;
    if ("error" in answer) {
      problem = `${options.url}: ${answer.error}`;
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
      const refused = refusal(answer, options.url);
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

function refusal(answer: Answer, url: string): Exclude<Given, { kind: "settled" }> {
  const problem = `${url} answers ${told(answer)}`;
  const { errors } = bodyOf(answer);
  if (answer.status === 400 && Array.isArray(errors) && errors.length > 0) {
    return { kind: "refused", errors, problem };
  }
  if (answer.status === 413) return { kind: "large", problem };
  const table = answer.status === 404 || answer.status === 400;
  return { kind: "unsent", of: table ? "table" : "collector", problem };
}

// deno-lint-ignore no-explicit-any
function bodyOf(answer: Answer): any {
  try {
    return JSON.parse(answer.text) ?? {};
  } catch {
    return {};
  }
}

function told(answer: Answer): string {
  const { error } = bodyOf(answer);
  return typeof error === "string" ? `${answer.status}: ${error}` : String(answer.status);
}

/** `sent`: the request may have reached somebody. */
function post(
  { url, token, certificates }: PostOptions,
  path: string,
  replay: string,
  body: Uint8Array,
): Promise<Answer | { readonly error: string; readonly sent: boolean }> {
  const target = new URL(path, url);
  const headers: Record<string, string> = {
    "Content-Type": "application/x-ndjson",
    "Content-Length": String(body.length),
    "Prefer": `handling=strict, wait=${WAIT_S}`,
    "Shishi-Replay": replay,
    ...(token === null ? {} : { Authorization: `Bearer ${token}` }),
  };
  return new Promise((resolve) => {
    const options = { method: "POST", headers, agent: false as const };
    const request = target.protocol === "https:"
      ? secure(target, { ...options, ca: [...certificates, ...rootCertificates] })
      : plain(target, options);
    const timer = setTimeout(() => request.destroy(new Error("no answer in time")), ANSWER_MS);
    const end = (result: Awaited<ReturnType<typeof post>>) => {
      clearTimeout(timer);
      resolve(result);
    };
    const failed = (error: Error & { code?: string }) =>
      end({ error: error.message || String(error.code), sent: !NEVER_SENT.has(error.code ?? "") });
    request.on("error", failed);
    request.on("response", (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (piece: string) => {
        if (text.length < MAX_ANSWER_LENGTH) text += piece;
      });
      response.on("error", failed);
      response.on("aborted", () => failed(new Error("the answer was cut off")));
      response.on("end", () => {
        end({ status: response.statusCode ?? 0, headers: response.headers, text });
      });
    });
    request.end(body);
  });
}

/** No connection came about, so nobody has read a byte. */
const NEVER_SENT: ReadonlySet<string> = new Set([
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "DEPTH_ZERO_SELF_SIGNED_CERT",
  "SELF_SIGNED_CERT_IN_CHAIN",
  "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
  "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
  "CERT_HAS_EXPIRED",
  "ERR_TLS_CERT_ALTNAME_INVALID",
  "ConnectionRefused",
]);
