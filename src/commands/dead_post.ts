/**
 * Gives letters to a collector over the network.
 *
 * By `node:https` and not by `fetch`: it trusts a certificate that it is given, on every runtime, and
 * never sends a body twice on its own.
 */

import { request as plain } from "node:http";
import { request as secure } from "node:https";
import { rootCertificates } from "node:tls";
import { giveLetters as give, type Given, type Write, type Written } from "../dead/give.ts";
import type { Letter } from "../dead/letter.ts";
import type { Clock } from "../contracts.ts";

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

/** More than the collector is asked to wait, for the body has to get there. */
const ANSWER_MS = 60_000;
const MAX_ANSWER_LENGTH = 4 * 1024 * 1024;

/** As `giveLetters` of the letters' room, which says what the parameters are. */
export function giveLetters(
  options: PostOptions,
  letters: readonly Letter[],
  id: string,
  again: boolean,
): Promise<Given> {
  const write = (rows: Write) => post(options, rows);
  return give({ ...options, to: options.url, write }, letters, id, again);
}

function post({ url, token, certificates }: PostOptions, write: Write): Promise<Written> {
  const { path, body } = write;
  const target = new URL(path, url);
  const headers: Record<string, string> = {
    ...write.headers,
    "Content-Length": String(body.length),
    ...(token === null ? {} : { Authorization: `Bearer ${token}` }),
  };
  return new Promise((resolve) => {
    const options = { method: "POST", headers, agent: false as const };
    const request = target.protocol === "https:"
      ? secure(target, { ...options, ca: [...certificates, ...rootCertificates] })
      : plain(target, options);
    const timer = setTimeout(() => request.destroy(new Error("no answer in time")), ANSWER_MS);
    const end = (result: Written) => {
      clearTimeout(timer);
      resolve(result);
    };
    const failed = (error: Error & { code?: string }) =>
      end({ error: wordsOf(error), sent: !NEVER_SENT.has(error.code ?? "") });
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

function wordsOf({ code, message }: Error & { code?: string }): string {
  return code === "ECONNREFUSED"
    ? "nothing listens there; --url names the collector"
    : message || String(code);
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
