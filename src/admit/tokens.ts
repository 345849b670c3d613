/**
 * Whose request it is, by its token, and what that one may do. An auth token may do everything; a write
 * token may append to its tables, within its quotas, and nothing else. Only hashes are kept, all of equal
 * length, and each request's is compared with every one of them from its first to its last bit, so that
 * neither memory nor time gives a token away. People read of a write token by its label.
 */

import type { Clock, WriteToken } from "../contracts.ts";
import { nodeCrypto } from "../kernel/builtins.ts";
import { compileGlobs } from "../kernel/names.ts";
import { type Exceeded, QuotaUse } from "../kernel/rate.ts";

/** What the tokens of one label have used; it outlives a change of settings. */
export class Account {
  readonly label: string;
  readonly #clock: Clock;
  #uses: readonly QuotaUse[] = [];

  constructor(label: string, clock: Clock) {
    this.label = label;
    this.#clock = clock;
  }

  /** A quota of the same kind and period goes on counting, also where it is another amount now. */
  adopt(quotas: WriteToken["quotas"]): void {
    this.#uses = quotas.map((quota) => {
      const known = this.#uses.find(({ quota: { what, periodMs } }) =>
        what === quota.what && periodMs === quota.periodMs
      );
      if (known === undefined) return new QuotaUse(quota, this.#clock);
      known.quota = quota;
      return known;
    });
  }

  /** What a request of so much would exceed; null: nothing. */
  refusal(rows: number, bytes: number): Exceeded | null {
    for (const use of this.#uses) {
      const exceeded = use.refusal(use.quota.what === "rows" ? rows : bytes);
      if (exceeded !== null) return exceeded;
    }
    return null;
  }

  /** @returns when it was used, for `giveBack`. */
  use(rows: number, bytes: number): number {
    for (const use of this.#uses) use.use(use.quota.what === "rows" ? rows : bytes);
    return this.#clock.nowMs();
  }

  giveBack(rows: number, bytes: number, usedMs: number): void {
    for (const use of this.#uses) use.giveBack(use.quota.what === "rows" ? rows : bytes, usedMs);
  }
}

/** The accounts of all labels. */
export class Accounts {
  readonly #byLabel = new Map<string, Account>();
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Those of labels that stay go on. */
  adopt(tokens: readonly WriteToken[]): void {
    const labels = new Set(tokens.map(({ label }) => label));
    for (const label of this.#byLabel.keys()) {
      if (!labels.has(label)) this.#byLabel.delete(label);
    }
    for (const { label, quotas } of tokens) {
      const account = this.#byLabel.get(label) ?? new Account(label, this.#clock);
      account.adopt(quotas);
      this.#byLabel.set(label, account);
    }
  }

  /** Of a label that was adopted. */
  of(label: string): Account {
    return this.#byLabel.get(label)!;
  }
}

/** A request's token. */
export interface Holder {
  /** Stands for the token where holders are told apart, e.g. by the rate limit. */
  readonly key: string;
  /** Null: an auth token, which may do everything. */
  readonly appender: Appender | null;
}

/** A write token. */
export interface Appender {
  readonly account: Account;
  /** For people: its tables; null: all. */
  readonly tables: readonly string[] | null;
  /** @param names of a table, whichever it is called by. */
  readonly mayWrite: (...names: readonly string[]) => boolean;
}

/** `"none"`: the request has no token; `"unknown"`: one that is not known. */
export type Found = Holder | "none" | "unknown";

export interface Tokens {
  /** There are auth tokens. */
  readonly reading: boolean;
  /** There are write tokens. */
  readonly writing: boolean;
  /** By the header `Authorization` alone. */
  inHeader(request: Request): Found;
  /** Of a write: where it has no header, a write token may stand in its address (`?token=`). */
  ofWrite(request: Request): Found;
}

/** @returns null where there are no tokens: none is asked for. */
export function createTokens(
  authTokens: readonly string[],
  writeTokens: readonly WriteToken[],
  accounts: Accounts,
): Tokens | null {
  accounts.adopt(writeTokens);
  if (authTokens.length + writeTokens.length === 0) return null;
  const hashes = [...authTokens.map(sha256), ...writeTokens.map(({ hash }) => hash)];
  const known = new Int32Array(hashes.length * WORDS);
  hashes.forEach((hash, at) => known.set(wordsOf(hash), at * WORDS));
  const holders = hashes.map((hash, at): Holder => {
    const token = writeTokens[at - authTokens.length];
    return { key: `token ${hash}`, appender: token ? appender(token, accounts) : null };
  });
  const find = (token: string): Found => {
    const at = indexOf(wordsOf(sha256(token)), known);
    return at < 0 ? "unknown" : holders[at]!;
  };
  const inHeader = ({ headers }: Request): Found => {
    const header = headers.get("authorization");
    if (header === null) return "none";
    const token = /^Bearer +(\S+) *$/i.exec(header)?.[1];
    return token === undefined ? "unknown" : find(token);
  };
  return {
    reading: authTokens.length > 0,
    writing: writeTokens.length > 0,
    inHeader,
    ofWrite(request) {
      const found = inHeader(request);
      if (found !== "none" || writeTokens.length === 0) return found;
      const token = tokenIn(request.url);
      if (token === null) return "none";
      const holder = find(token);
      // An auth token is no thing for an address, which logs and histories keep.
      return typeof holder === "object" && holder.appender === null ? "unknown" : holder;
    },
  };
}

function appender({ label, tables }: WriteToken, accounts: Accounts): Appender {
  const matches = tables === null ? () => true : compileGlobs(tables);
  return {
    account: accounts.of(label),
    tables,
    mayWrite: (...names) => names.some(matches),
  };
}

/** Of `?token=TOKEN`; null: there is none. */
function tokenIn(url: string): string | null {
  const query = url.indexOf("?");
  // A look before the work: most addresses have no token.
  if (query < 0 || !url.includes("token=", query)) return null;
  return new URLSearchParams(url.slice(query + 1)).get("token");
}

/** Hexadecimal; in one call it costs half of what it costs in three. */
function sha256(text: string): string {
  return nodeCrypto().hash("sha256", text, "hex");
}

const WORDS = 8;
/** The one that was made last. */
const words = new Int32Array(WORDS);

/** A hash, 32 bits at a time; it is written over by the next one. */
function wordsOf(hash: string): Int32Array {
  for (let at = 0; at < hash.length; at++) {
    const code = hash.charCodeAt(at);
    // `0` to `9`, `a` to `f`.
    words[at >> 3] = words[at >> 3]! << 4 | (code & 15) + (code >> 6) * 9;
  }
  return words;
}

/** Where `one` is among `all`, from 0; -1: nowhere. As much work wherever it is. */
function indexOf(one: Int32Array, all: Int32Array): number {
  let found = -1;
  for (let at = 0; at < all.length; at += WORDS) {
    let difference = 0;
    for (let word = 0; word < WORDS; word++) difference |= all[at + word]! ^ one[word]!;
    // The sign of the one or of its negative: 0 for 0 alone, -1 for anything else.
    const other = (difference | -difference) >> 31;
    found = (found & other) | ((at / WORDS) & ~other);
  }
  return found;
}
