/**
 * Posts rows to a collector until they are acknowledged: what `pipe` and `import` share. Each batch travels
 * under an idempotency key, so that it can be sent again whenever an answer does not come; a collector that is
 * full, stopping or away is waited for.
 *
 * By `node:https` and not by `fetch`: it trusts a certificate that it is given, on every runtime, speaks to
 * sockets in the file system, and never sends a request twice on its own.
 */

import { readFileSync } from "node:fs";
import { Agent as PlainAgent } from "node:http";
import { Agent as SecureAgent } from "node:https";
import process from "node:process";
import { Backoff } from "../kernel/backoff.ts";
import { codeOf, messageOf, plainNetworkError } from "../kernel/errors.ts";
import { done, failed, type Result } from "../kernel/result.ts";
import { type Clock, sleep } from "../kernel/time.ts";
import { matching, text, token as tokenKind } from "../settings/kinds.ts";
import type { SettingName, Settings } from "../settings/settings.ts";
import { setting } from "../settings/spec.ts";
import { targetOf, trustedBy, urlHere } from "./cli.ts";
import { type Answer, answerOf } from "./collector_client.ts";

/** What says where a collector is. */
export const SENDER_SETTINGS: readonly SettingName[] = [
  "listen",
  "ca-file",
  "tls-cert",
  "tls-key",
];
export const SENDER_FLAGS = [
  setting({
    name: "url",
    kind: matching(
      "URL",
      "http(s)://host:port, or unix:/path",
      /^(?:https?:\/\/[^/?#\s@]+\/?|unix:\/\S+)$/,
    ),
    default: null,
    meaning: "the collector; the one that listens here unless given",
  }),
  setting({
    name: "token-file",
    kind: text("FILE", "the path of a file"),
    default: null,
    meaning: "a file that holds a bearer token; SHISHI_TOKEN unless given",
  }),
] as const;

const TOKEN_VARIABLE = "SHISHI_TOKEN";

export interface Destination {
  /** `http(s)://host:port` or `unix:/path`. */
  readonly url: string;
  readonly token: string | null;
  /** PEM certificates to trust besides the runtime's. */
  readonly certificates: readonly string[];
}

/** Reads the token, which is never an argument: every user of a host sees those of all processes. */
export function destinationOf(
  settings: Settings,
  given: { readonly url: string | null; readonly "token-file": string | null },
): Result<Destination> {
  const url = given.url ?? urlHere(settings);
  const certificates = trustedBy(settings);
  const file = given["token-file"];
  let token = process.env[TOKEN_VARIABLE]?.trim() ?? "";
  if (file !== null) {
    try {
      token = readFileSync(file, "utf8").trim();
    } catch (error) {
      return failed(`--token-file: ${messageOf(error)}`);
    }
  }
  if (token === "" && file === null) return done({ url, token: null, certificates });
  return tokenKind.parse(token).ok
    ? done({ url, token, certificates })
    : failed(`${file === null ? TOKEN_VARIABLE : "--token-file"}: expected one bearer token`);
}

export interface RefusedRow {
  /** In the batch, from 0. */
  readonly index: number;
  /** Of CSV: in the body, from 1. */
  readonly line?: number;
  readonly error: string;
}

/** What became of a batch. */
export type Sent =
  | {
    readonly kind: "acknowledged";
    readonly accepted: number;
    readonly rejected: number;
    /** The first hundred; none where the answer is that to a batch that came before. */
    readonly errors: readonly RefusedRow[];
    /** It was there already. */
    readonly duplicate: boolean;
  }
  /** More than the collector takes at once, of this sender or of any. */
  | { readonly kind: "large"; readonly problem: string }
  /** It will never be taken, and neither will the next one. */
  | { readonly kind: "hopeless"; readonly problem: string }
  /** The signal was aborted first. */
  | { readonly kind: "given up" };

/** A batch as it is sent. */
export interface Sending {
  readonly body: Uint8Array;
  readonly contentType: string;
  readonly key: string;
}

const BACKOFF = { leastMs: 250, mostMs: 30_000 } as const;
/** A collector that says so is not waited for any longer. */
const LONGEST_WAIT_MS = 60_000;
/** An answer may wait for ClickHouse. */
const QUIET_MS = 120_000;
const MOST_ANSWER_LENGTH = 1024 * 1024;
/** What `/events/TABLE` answers of the table that is behind `/events`. */
const IS_EVENTS = /use POST \/events$/;

export class Sender {
  readonly #to: Destination;
  readonly #clock: Clock;
  readonly #backoff: Backoff;
  readonly #agent: PlainAgent | SecureAgent;
  #path: string;
  /** Why the batch under way is sent again, and when; null: it is not. */
  waiting: { readonly problem: string; readonly untilMs: number } | null = null;

  constructor(to: Destination, table: string, clock: Clock) {
    this.#to = to;
    this.#clock = clock;
    this.#backoff = new Backoff(clock, BACKOFF);
    this.#path = `/events/${encodeURIComponent(table)}`;
    const Agent = to.url.startsWith("https:") ? SecureAgent : PlainAgent;
    this.#agent = new Agent({ keepAlive: true, maxSockets: 1 });
  }

  /** Until the batch is acknowledged, however long that takes. Never rejects. */
  async send(sending: Sending, signal: AbortSignal): Promise<Sent> {
    for (;;) {
      if (signal.aborted) return { kind: "given up" };
      const answer = await this.#exchange(sending, signal);
      const sent = answer instanceof Error
        ? againFor(`${this.#to.url}: ${messageOf(plainNetworkError(answer))}${distrust(answer)}`)
        : this.#meaning(answer);
      if (sent.kind === "elsewhere") {
        this.#path = "/events";
        continue;
      }
      if (sent.kind !== "again") {
        this.#backoff.succeeded();
        this.waiting = null;
        return sent;
      }
      const waitMs = Math.max(this.#backoff.failed(), sent.retryAfterMs);
      this.waiting = { problem: sent.problem, untilMs: this.#clock.monotonicMs() + waitMs };
      await sleep(this.#clock, waitMs, signal);
    }
  }

  close(): void {
    this.#agent.destroy();
  }

  #meaning({ status, retryAfter, text }: Answer): Sent | Again | { readonly kind: "elsewhere" } {
    const { url } = this.#to;
    const { error, ...answer } = parsed(text);
    const problem = `${url} answers ${status}${typeof error === "string" ? `: ${error}` : ""}`;
    if (status === 200 || status === 202 || (status === 400 && Array.isArray(answer["errors"]))) {
      const { accepted = 0, rejected = 0, errors = [], duplicate = false } = answer as Partial<
        Extract<Sent, { kind: "acknowledged" }>
      >;
      return { kind: "acknowledged", accepted, rejected, errors, duplicate };
    }
    if (status === 413) return { kind: "large", problem };
    if (status === 404 && IS_EVENTS.test(String(error)) && this.#path !== "/events") {
      return { kind: "elsewhere" };
    }
    const passes = status === 408 || status === 421 || status === 429 || status >= 500;
    if (!passes) return { kind: "hopeless", problem };
    const seconds = Number(retryAfter ?? 0);
    return againFor(problem, Number.isFinite(seconds) ? seconds * 1000 : 0);
  }

  #exchange({ body, contentType, key }: Sending, signal: AbortSignal): Promise<Answer | Error> {
    const { url, token, certificates } = this.#to;
    const { target, ...at } = targetOf(url, this.#path);
    const options = {
      method: "POST",
      headers: {
        "Content-Type": contentType,
        "Content-Length": String(body.length),
        "Idempotency-Key": key,
        ...(token === null ? {} : { Authorization: `Bearer ${token}` }),
      },
      agent: this.#agent,
      timeout: QUIET_MS,
      signal,
      ...at,
    };
    return answerOf(target, options, { certificates, body, mostLength: MOST_ANSWER_LENGTH });
  }
}

/** What to do about a certificate that nothing here vouches for. */
function distrust(error: Error): string {
  const unknown = /self.signed|unable to (?:verify|get)|UnknownIssuer/i;
  return unknown.test(`${error.message} ${codeOf(error)}`)
    ? "; --ca-file names a file with the authority that signed its certificate"
    : "";
}

interface Again {
  readonly kind: "again";
  readonly problem: string;
  readonly retryAfterMs: number;
}

function againFor(problem: string, retryAfterMs = 0): Again {
  return { kind: "again", problem, retryAfterMs: Math.min(retryAfterMs, LONGEST_WAIT_MS) };
}

function parsed(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? value as Record<string, unknown> : {};
  } catch {
    return {};
  }
}

// ── What a person sees of it, on stderr: on a terminal one line that is written over, elsewhere a line
// now and then.

/** On a terminal a quarter of a second. */
const SHOWN_MS = 250;

/** Lines that stay, above one that changes. */
export class ProgressLine {
  readonly #terminal = process.stderr.isTTY === true;
  readonly #line: () => string;
  readonly #everyMs: number;
  readonly #clock: Clock;
  #shown = false;
  #cancel: () => void = () => {};

  /** @param everyMs between lines where there is no terminal; Infinity: there are none. */
  constructor(clock: Clock, everyMs: number, line: () => string) {
    this.#clock = clock;
    this.#line = line;
    this.#everyMs = this.#terminal ? SHOWN_MS : everyMs;
    this.#again();
  }

  /** A line that stays. */
  tell(line: string): void {
    this.#erase();
    process.stderr.write(`shishi: ${line}\n`);
    if (this.#terminal) this.#show();
  }

  end(): void {
    this.#cancel();
    this.#erase();
  }

  #again(): void {
    if (this.#everyMs === Infinity) return;
    this.#cancel = this.#clock.after(this.#everyMs, () => {
      this.#erase();
      this.#show();
      this.#again();
    });
  }

  #show(): void {
    const line = this.#line();
    if (!this.#terminal) return void process.stderr.write(`shishi: ${line}\n`);
    process.stderr.write(line.slice(0, Math.max(20, (process.stderr.columns || 80) - 1)));
    this.#shown = true;
  }

  #erase(): void {
    if (this.#shown) process.stderr.write("\r\x1b[K");
    this.#shown = false;
  }
}

/** `12,345` */
export function grouped(number: number): string {
  return Math.round(number).toLocaleString("en-US");
}
