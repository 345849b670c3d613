/**
 * Asks a running collector about its dead letters and its spool: the one that listens here and has the
 * folder that is meant, or the one that a flag names.
 *
 * By `node:https` and not by `fetch`: it trusts a certificate that it is given, on every runtime, and
 * never sends a request twice on its own.
 */

import { Buffer } from "node:buffer";
import { request as plain, type RequestOptions } from "node:http";
import { request as secure } from "node:https";
import { rootCertificates } from "node:tls";
import { FOLDER_HEADER } from "../contracts.ts";
import { identityOf } from "../dead/store.ts";
import { matching, token } from "../settings/kinds.ts";
import type { SettingName, Settings } from "../settings/settings.ts";
import { setting } from "../settings/spec.ts";
import { deadFolder } from "../spool/data_dir.ts";
import { adminUrlHere, targetOf, trustedBy } from "./cli.ts";

/** What says where the collector of this host listens, and what it asks for. */
export const CLIENT_SETTINGS: readonly SettingName[] = [
  "data-dir",
  "listen",
  "admin-listen",
  "ca-file",
  "auth-tokens",
  "tls-cert",
  "tls-key",
  "tls-client-auth",
  "tls-client-ca",
];

/** Flags that name another. @param whose `whose letters are meant`. */
export function clientFlags(whose: string) {
  return [
    setting({
      name: "url",
      kind: matching("URL", "http(s)://host:port", /^https?:\/\/[^/?#\s@]+\/?$/),
      default: null,
      meaning: `the collector ${whose}; the one that listens here unless given`,
    }),
    setting({
      name: "token",
      kind: token,
      default: null,
      meaning: "bearer token; the first of auth-tokens unless given",
      secret: true,
    }),
  ] as const;
}

/** @param flags as of `clientFlags`. */
export function clientOf(
  settings: Settings,
  { url, token }: { readonly url: string | null; readonly token: string | null },
): ClientOptions {
  return {
    url: url ?? adminUrlHere(settings),
    token: token ?? settings.authTokens[0] ?? null,
    certificates: trustedBy(settings),
    folder: url === null ? folderHere(settings) : null,
  };
}

/** Which folder is meant, so that another collector at this address is not taken for its own. */
function folderHere({ dataDir }: Settings): string | null {
  try {
    return identityOf(deadFolder(dataDir));
  } catch {
    // A user that may not look at it may still ask the collector.
    return null;
  }
}

export interface ClientOptions {
  /** `http(s)://host:port`. */
  readonly url: string;
  /** Bearer token, or null. */
  readonly token: string | null;
  /** PEM certificates to trust besides the well-known ones. */
  readonly certificates: readonly string[];
  /** Of the folder that is meant; null: of whichever collector answers. */
  readonly folder: string | null;
}

export interface Asked {
  readonly method: "GET" | "POST" | "DELETE";
  readonly path: string;
  /** Null values are left out. */
  readonly parameters?: Readonly<Record<string, string | number | boolean | null>>;
  /** Sent as JSON. */
  readonly body?: unknown;
  /** Gets the lines of a good answer, one by one; else the answer is JSON. */
  readonly onLine?: (line: string) => void;
}

export type Told<T> =
  | { readonly kind: "answer"; readonly value: T; readonly retryAfterS: number | null }
  | NotTold;

/** `away`: nothing listens there. `elsewhere`: its letters lie in another folder. */
export interface NotTold {
  readonly kind: "away" | "elsewhere" | "refused" | "lost";
  /** A sentence that begins with the URL. */
  readonly problem: string;
  readonly retryAfterS: number | null;
}

/** An answer to a request of a command. */
export interface Answer {
  readonly status: number;
  readonly retryAfter: string | undefined;
  readonly text: string;
}

/** A replay takes up to 25 s, and its answer has to get here. */
const QUIET_MS = 60_000;
const MOST_LENGTH = 64 * 1024 * 1024;
/** Collectors that share a port answer by turns: the one that is meant is soon met. */
const MOST_TURNS = 50;

/** Never rejects. */
export async function askCollector<T>(options: ClientOptions, asked: Asked): Promise<Told<T>> {
  for (let turn = 1;; turn++) {
    const told = await askOnce<T>(options, asked);
    if (told.kind !== "elsewhere" || turn === MOST_TURNS) return told;
  }
}

async function askOnce<T>(options: ClientOptions, asked: Asked): Promise<Told<T>> {
  const { url } = options;
  const answer = await exchange(options, asked);
  if (answer instanceof Error) {
    const { code, message } = answer as Error & { code?: string };
    return REFUSED.includes(code ?? "")
      ? { kind: "away", problem: `${url}: nothing listens there`, retryAfterS: null }
      : { kind: "lost", problem: `${url}: ${message || code}`, retryAfterS: null };
  }
  const { status, retryAfter, text } = answer;
  const seconds = Number(retryAfter);
  const retryAfterS = retryAfter === undefined || !Number.isFinite(seconds) ? null : seconds;
  const value = parsed(text);
  if ((status === 200 || status === 202) && (value !== null || asked.onLine !== undefined)) {
    return { kind: "answer", value: value as T, retryAfterS };
  }
  const { error } = (value ?? {}) as { error?: unknown };
  const words = typeof error === "string" ? `${status}: ${error}` : String(status);
  const kind = status === 421 ? "elsewhere" : "refused";
  return { kind, problem: `${url} answers ${words}`, retryAfterS };
}

const REFUSED = ["ECONNREFUSED", "ConnectionRefused"];

function exchange(options: ClientOptions, asked: Asked): Promise<Answer | Error> {
  const { url, token, certificates, folder } = options;
  const { target, ...at } = targetOf(url, asked.path);
  for (const [name, value] of Object.entries(asked.parameters ?? {})) {
    if (value !== null) target.searchParams.set(name, String(value));
  }
  const body = asked.body === undefined ? "" : JSON.stringify(asked.body);
  const headers: Record<string, string> = {
    ...(asked.method === "POST"
      ? { "Content-Type": "application/json", "Content-Length": String(Buffer.byteLength(body)) }
      : {}),
    ...(token === null ? {} : { Authorization: `Bearer ${token}` }),
    ...(folder === null ? {} : { [FOLDER_HEADER]: folder }),
  };
  const request = { method: asked.method, headers, agent: false, timeout: QUIET_MS, ...at };
  return answerOf(target, request, {
    certificates,
    body,
    mostLength: MOST_LENGTH,
    onLine: asked.onLine,
  });
}

/**
 * Sends a request; an error where no answer came. Never rejects.
 * @param more `certificates`: PEM, to trust besides the usual ones; `mostLength`: what is kept of an answer;
 * `onLine` gets the lines of an answer 200, of which only what stands behind the last is kept.
 */
export function answerOf(
  target: URL,
  options: RequestOptions,
  more: {
    readonly certificates: readonly string[];
    readonly body: string | Uint8Array;
    readonly mostLength: number;
    readonly onLine?: ((line: string) => void) | undefined;
  },
): Promise<Answer | Error> {
  const { certificates, body, mostLength } = more;
  return new Promise((resolve) => {
    const request = target.protocol === "https:"
      ? secure(target, { ...options, ca: [...certificates, ...rootCertificates] })
      : plain(target, options);
    request.on("timeout", () => request.destroy(new Error("no answer in time")));
    request.on("error", resolve);
    request.on("response", (response) => {
      const { statusCode: status = 0, headers } = response;
      const onLine = status === 200 ? more.onLine : undefined;
      let text = "";
      response.setEncoding("utf8").on("data", (piece: string) => {
        if (text.length < mostLength) text += piece;
        if (onLine === undefined) return;
        const lines = text.split("\n");
        text = lines.pop()!;
        lines.forEach((line) => onLine(line));
      });
      response.on("error", resolve);
      response.on("aborted", () => resolve(new Error("the answer was cut off")));
      response.on("end", () => resolve({ status, retryAfter: headers["retry-after"], text }));
    });
    request.end(body);
  });
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
