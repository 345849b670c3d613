/**
 * `write-tokens`: who may append, to which tables and how much. One a line or separated by spaces, so that
 * commas are free for tables:
 *
 *     [LABEL:]TOKEN[=TABLES][;QUOTA]…        web:s3cret=events,logs_*;1000/s;5GiB/d
 *
 * In a file a `#` begins a comment. A token is kept as its hash alone. No message repeats what was written:
 * a token with a sign that has a meaning here is cut by it, and its parts are no less secret.
 */

import type { WriteToken } from "../contracts.ts";
import { nodeCrypto } from "../kernel/builtins.ts";
import { isTableGlob } from "../kernel/names.ts";
import type { Quota } from "../kernel/quota.ts";
import { done as good, failed, type Result } from "../kernel/result.ts";
import { linesOf, parseBytes, parseCount } from "./kinds.ts";
import type { Kind, Parsed } from "./spec.ts";

/** Each has counts of its own in metrics and status. */
const MOST_TOKENS = 1000;
const MOST_QUOTAS = 8;

const LABEL = /^([A-Za-z0-9_-]{1,64}):/;
/** Signs of equality at its end belong to a token in base64. */
const TOKEN_AND_TABLES = /^([^=,:]+=*?)(?:=([^=]+))?$/;
const PERIOD_MS: Readonly<Record<string, number>> = {
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

export const writeTokens: Kind<readonly WriteToken[]> = {
  placeholder: "[LABEL:]TOKEN[=TABLES][;QUOTA]…",
  wanted: "tokens such as web:TOKEN=events,logs_*;1000/s;5GiB/d, one a line or separated by spaces",
  file: "list",
  joint: "\n",
  show: () => "***",
  parse(text): Parsed<readonly WriteToken[]> {
    const items = linesOf(text).flatMap((line) => line.split(/\s+/));
    if (items.length === 0) return { ok: false, found: "nothing but comments" };
    if (items.length > MOST_TOKENS) {
      return { ok: false, wanted: `at most ${MOST_TOKENS} tokens`, found: `${items.length}` };
    }
    const tokens: WriteToken[] = [];
    for (const [index, item] of items.entries()) {
      const read = readToken(item);
      const problem = read.ok ? clash(tokens, read.value) : read.problem;
      if (problem !== null) return { ok: false, found: `token ${index + 1}: ${problem}` };
      if (read.ok) tokens.push(read.value);
    }
    return { ok: true, value: tokens };
  },
};

function readToken(item: string): Result<WriteToken> {
  const [head = "", ...limits] = item.split(";");
  const label = LABEL.exec(head)?.[1] ?? null;
  const bare = label === null ? head : head.slice(label.length + 1);
  const match = TOKEN_AND_TABLES.exec(bare);
  if (match === null) {
    return failed(
      bare === "" || bare.startsWith("=")
        ? "nothing before = or ;"
        : "a comma or a second colon in the token (separate tokens by spaces)",
    );
  }
  const [, token = "", listed] = match;
  if (/[^\x21-\x7e]/.test(token)) return failed("a sign that is no visible ASCII");
  const tables = listed?.split(",") ?? null;
  const odd = tables?.findIndex((name) => !isTableGlob(name)) ?? -1;
  if (odd >= 0) return failed(`table ${odd + 1} has a name that no table has`);
  const quotas: Quota[] = [];
  for (const [index, limit] of limits.entries()) {
    const quota = readQuota(limit);
    if (quota === null) return failed(`quota ${index + 1} is not like 1000/s or 5GiB/d`);
    quotas.push(quota);
  }
  if (quotas.length > MOST_QUOTAS) return failed(`${quotas.length} quotas`);
  const named = label ?? shortName(token);
  return good({ label: named, hash: sha256(token), chars: token.length, tables, quotas });
}

/** Rows without a unit, bytes with one. */
function readQuota(text: string): Quota | null {
  const [amount = "", unit = "", ...more] = text.split("/");
  const periodMs = PERIOD_MS[unit];
  if (periodMs === undefined || more.length > 0) return null;
  const rows = parseCount(amount);
  const most = rows ?? parseBytes(amount);
  if (most === null || most < 1) return null;
  return { what: rows === null ? "bytes" : "rows", most, periodMs, text };
}

/** Two tokens of one label share what they may use, while one takes the other's place. */
function clash(tokens: readonly WriteToken[], token: WriteToken): string | null {
  if (tokens.some(({ hash }) => hash === token.hash)) return "one that was given before";
  const namesake = tokens.find(({ label }) => label === token.label);
  const same = (one: WriteToken) => one.quotas.map(({ text }) => text).join(";");
  return namesake === undefined || same(namesake) === same(token)
    ? null
    : `other quotas than those of another token with the label ${token.label}`;
}

function sha256(text: string): string {
  return nodeCrypto().createHash("sha256").update(text).digest("hex");
}

/** Tells tokens without a label apart, and too short to find one by. */
function shortName(token: string): string {
  return `t-${sha256(`label of ${token}`).slice(0, 6)}`;
}
