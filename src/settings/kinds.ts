/**
 * The kinds of values that settings have: how each is written, read and bounded. Nothing here knows a
 * setting by name; a message says what was wanted, the loader adds where the value came from.
 *
 * First the kinds, then the URLs of servers, then durations, sizes and counts as people write them, and last
 * write tokens with what they may do.
 */

import type { Endpoint, InsertSetting, KeyRule, WriteToken } from "../contracts.ts";
import { type Network, parseNetwork } from "../kernel/address.ts";
import { nodeCrypto } from "../kernel/builtins.ts";
import { isTableGlob, isTableName, TABLE_NAME_WANTED } from "../kernel/names.ts";
import { isPinned } from "../kernel/pinned.ts";
import type { Quota, Rate } from "../kernel/rate.ts";
import { done, failed, type Result } from "../kernel/result.ts";
import { type Kind, type Parsed, quote } from "./spec.ts";

/** Where a server listens. Port 0 lets the system choose; hostname `""` is every address of the host. */
export interface ListenAddress {
  readonly hostname: string;
  readonly port: number;
}

/** A socket in the file system. */
export interface ListenPath {
  readonly path: string;
}

/** `127.0.0.1:8080`, `[::1]:8080`, `:8080`, `unix:/run/x.sock`: as it is written. */
export function writeAddress(listen: ListenAddress | ListenPath): string {
  if ("path" in listen) return `unix:${listen.path}`;
  const { hostname, port } = listen;
  return `${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`;
}

interface Range {
  readonly min: number;
  readonly max: number;
}

const TRUE = ["true", "yes", "on", "1"];
const FALSE = ["false", "no", "off", "0"];

/** Whether a text is a way to write a boolean. */
export function isBooleanText(text: string): boolean {
  return TRUE.includes(text) || FALSE.includes(text);
}

export const boolean: Kind<boolean> = {
  placeholder: "",
  wanted: "true or false",
  file: "boolean",
  parse: (text) => isBooleanText(text) ? good(TRUE.includes(text)) : { ok: false },
};

/** Milliseconds, within bounds. */
export function duration(range: Range): Kind<number> {
  const wanted = "a duration such as 500ms, 1s or 5m";
  return measured("DURATION", wanted, "a duration", parseDurationMs, formatDuration, range);
}

/** As `duration`; `off` is `null`. */
export function durationOrOff(range: Range): Kind<number | null> {
  const timed = duration(range);
  const wanted = `${timed.wanted}, or off`;
  return {
    ...timed,
    placeholder: "DURATION|off",
    wanted,
    parse(text) {
      if (text === "off") return good(null);
      const parsed = timed.parse(text);
      return parsed.ok ? parsed : { ok: false, wanted: `${parsed.wanted ?? timed.wanted}, or off` };
    },
  };
}

/** Bytes, within bounds. */
export function size(range: Range): Kind<number> {
  const wanted = "a size such as 64KiB, 10MiB or 1GiB";
  return { ...measured("SIZE", wanted, "a size", parseBytes, formatBytes, range), file: "number" };
}

/** A whole number, within bounds. */
export function count(range: Range): Kind<number> {
  const wanted = "a whole number such as 1000 or 1_000_000";
  const kind = measured("N", wanted, "a whole number", parseCount, formatCount, range);
  return { ...kind, file: "number" };
}

const PERIOD_MS: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000 };

/** `100/s`, its count within bounds; `off` is `null`. */
export function rateOrOff({ min, max }: Range): Kind<Rate | null> {
  return {
    placeholder: "N/s|N/m|N/h|off",
    wanted: `a rate such as 100/s, 600/m or 10_000/h, from ${min} to ${max}, or off`,
    parse(text) {
      if (text === "off") return good(null);
      const [count = "", unit = "", ...more] = text.split("/");
      const parsed = parseCount(count);
      const periodMs = PERIOD_MS[unit];
      const sound = parsed !== null && parsed >= min && parsed <= max && more.length === 0;
      return sound && periodMs !== undefined ? good({ count: parsed, periodMs }) : { ok: false };
    },
  };
}

/** A part of a whole, as a number from 0 to 1: `50%`. */
export function share({ min, max }: Range): Kind<number> {
  return {
    placeholder: "N%",
    wanted: `a share such as 50%, from ${min}% to ${max}%`,
    parse(text) {
      const percent = /^(\d{1,3})%$/.exec(text)?.[1];
      const value = Number(percent ?? NaN);
      return value >= min && value <= max ? good(value / 100) : { ok: false };
    },
  };
}

/** One of a few words. */
export function oneOf<const T extends string>(words: readonly T[]): Kind<T> {
  const wanted = words.length > 1
    ? `${words.slice(0, -1).join(", ")} or ${words.at(-1)}`
    : `${words[0]}`;
  return {
    placeholder: words.join("|"),
    wanted,
    parse(text) {
      const word = words.find((known) => known === text);
      return word === undefined ? { ok: false } : good(word);
    },
  };
}

/** Any text without control characters, taken as it is. */
export function text(placeholder: string, wanted: string): Kind<string> {
  return matching(placeholder, wanted, /^\P{Cc}+$/u);
}

/** A text that matches. */
export function matching(placeholder: string, wanted: string, pattern: RegExp): Kind<string> {
  return { placeholder, wanted, parse: (text) => pattern.test(text) ? good(text) : { ok: false } };
}

/** The name of a table, safe to paste into SQL. */
export const tableName: Kind<string> = {
  placeholder: "NAME",
  wanted: TABLE_NAME_WANTED,
  parse: (text) => isTableName(text) ? good(text) : { ok: false },
};

/** A table name or a pattern of names. */
export const tableGlob: Kind<string> = {
  placeholder: "NAME|GLOB",
  wanted: "table names, db.table, or patterns such as logs_* and db.logs_*, separated by commas",
  parse: (text) => isTableGlob(text) ? good(text) : { ok: false },
};

const POLICIES = ["error", "skip", "column", "keep"] as const;

/** What becomes of unknown keys: of all tables, or `TABLE=column`. */
export const keyRule: Kind<KeyRule> = {
  placeholder: "[TABLE=]error|skip|column|keep",
  wanted:
    "error, skip, column or keep, or such as logs_*=column for some tables, separated by commas",
  parse(text) {
    const at = text.lastIndexOf("=");
    const policy = POLICIES.find((known) => known === text.slice(at + 1).trim());
    const table = at < 0 ? null : text.slice(0, at).trim();
    if (policy === undefined || table !== null && !isTableGlob(table)) return { ok: false };
    return good({ table, policy });
  },
};

/** A cluster as `remote_servers` names it, or a macro such as `{cluster}`. */
export const clusterName: Kind<string> = matching(
  "NAME",
  "the name of a cluster of ClickHouse's remote_servers, or {cluster}",
  /^(?:[A-Za-z0-9_.-]{1,64}|\{[A-Za-z0-9_]{1,64}\})$/,
);

/** Subject tokens without wildcards. */
export const subject: Kind<string> = matching(
  "SUBJECT",
  "a NATS subject such as shishi or prod.shishi: letters, digits, - and _ between dots",
  /^(?=.{1,128}$)[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*$/,
);

/** The seed of a NATS user: base32, its first letters say what it is. */
export const nkeySeed: Kind<string> = matching(
  "SEED",
  "the seed of a NATS user: SU and 56 more capital letters and digits",
  /^SU[A-Z2-7]{56}$/,
);

/** A bearer token: what may stand in a header. */
export const token: Kind<string> = matching(
  "TOKEN",
  "a token of visible ASCII characters without a comma",
  /^[\x21-\x2b\x2d-\x7e]+$/,
);

/** Bearer tokens, separated by commas, or one a line with comments. No message repeats one. */
export const tokens: Kind<readonly string[]> = {
  ...list(token),
  wanted: "tokens of visible ASCII characters, separated by commas or one a line",
  parse: (text) => list(token).parse(linesOf(text).join(",")),
};

/** The lines of a file of tokens, without what a `#` begins and what is empty then. */
export function linesOf(text: string): string[] {
  return text.split(/\r?\n/)
    .map((line) => line.replace(/(?:^|\s)#.*$/, "").trim())
    .filter((line) => line !== "");
}

// What HTTP itself needs, and what says who the collector is at ClickHouse.
const OWN_HEADERS =
  /^(?:host|connection|content-(?:length|type|encoding)|transfer-encoding|te|upgrade|expect|trailer|keep-alive|proxy-.*|x-clickhouse-.*)$/i;

/** `Name: value`; the value may hold colons and commas, and no secret of it is in a message. */
const header: Kind<readonly [name: string, value: string]> = {
  placeholder: "NAME: VALUE",
  wanted: "headers such as Authorization: Bearer abc, separated by commas",
  show: () => "***",
  parse(text) {
    const [, name = "", value = ""] =
      /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(\P{Cc}+)$/u.exec(text) ??
        [];
    if (name === "") return { ok: false, found: "***" };
    if (!OWN_HEADERS.test(name)) return good([name, value.trim()] as const);
    return {
      ok: false,
      wanted: /^x-clickhouse-/i.test(name)
        ? "headers other than ClickHouse's own: clickhouse-url has user and password, insert-settings " +
          "has settings"
        : "headers other than those that HTTP itself needs",
      found: quote(name),
    };
  },
};

/** A comma separates only where a new header begins. */
export const headers: Kind<readonly (readonly [name: string, value: string])[]> = list(
  header,
  /,\s*(?=[!#$%&'*+.^_`|~0-9A-Za-z-]+:)/,
);

const insertSetting: Kind<InsertSetting> = {
  placeholder: "[TABLE:]NAME=VALUE",
  wanted: "settings of ClickHouse such as insert_quorum=2, or logs_*:insert_quorum=2 for some " +
    "tables, separated by commas",
  parse(text) {
    const [, table = null, name = "", value = ""] =
      /^(?:([^=]+):)?([A-Za-z_]\w{0,127})=(\P{Cc}{0,1000})$/u.exec(text) ?? [];
    if (name === "" || table !== null && !isTableGlob(table)) return { ok: false };
    if (!isPinned(name)) return good({ table, name, value });
    return {
      ok: false,
      wanted: "settings other than those that the collector itself sets on its INSERTs",
      found: name,
    };
  },
};

/** A comma separates only where a new setting begins. */
export const insertSettings: Kind<readonly InsertSetting[]> = list(
  insertSetting,
  /,\s*(?=(?:[^=,]+:)?[A-Za-z_]\w*=)/,
);

/** What a browser sends as `Origin`, or `*`. */
export const origin: Kind<string> = {
  placeholder: "ORIGIN",
  wanted: "origins such as https://app.example.com (scheme, host and port only), or *",
  parse(text) {
    if (text === "*") return good(text);
    const bare = text.toLowerCase();
    try {
      const url = new URL(bare);
      // A star within is a host's name to `URL`, and never one that a browser sends.
      const sound = /^https?:$/.test(url.protocol) && bare === url.origin && !bare.includes("*");
      return sound ? good(bare) : { ok: false };
    } catch {
      return { ok: false };
    }
  },
};

/** Whose word on addresses counts: an address, a network, or `unix`. */
export const proxy: Kind<Network | "unix"> = {
  placeholder: "ADDRESS[/BITS]|unix",
  wanted:
    "addresses or networks such as 10.0.0.0/8 or 2001:db8::/32 (0 behind the prefix), or unix",
  parse(text) {
    const found = text === "unix" ? text : parseNetwork(text);
    return found === null ? { ok: false } : good(found);
  },
};

/** A part of a NATS subject and a label of metrics; what neither can hold becomes `-`. */
export const label: Kind<string> = {
  placeholder: "NAME",
  wanted: "a name of at most 128 characters",
  parse(text) {
    const safe = text.replace(/[^A-Za-z0-9_-]/gu, "-");
    return safe.length <= 128 ? good(safe) : { ok: false };
  },
};

/** As `label`, but not the word that addresses every group at once. */
export const groupLabel: Kind<string> = {
  ...label,
  wanted: "a name of at most 128 characters other than all, which means every collector",
  parse: (text) => text === "all" ? { ok: false } : label.parse(text),
};

/** `127.0.0.1:8080`, `localhost:8080`, `[::1]:8080`, `:8080` for every address, or `unix:/PATH`. */
export const listenAddress: Kind<ListenAddress | ListenPath> = {
  placeholder: "ADDRESS:PORT|unix:PATH",
  wanted: "address:port such as 127.0.0.1:8080, [::1]:8080 or :8080, or unix:/path",
  parse(text) {
    const path = /^unix:(\/\P{Cc}{1,90})$/u.exec(text)?.[1];
    if (path !== undefined) return good({ path });
    const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})))?:(\d{1,5})$/
      .exec(text);
    const port = Number(match?.[3]);
    if (!match || port > 65535) return { ok: false };
    return good({ hostname: match[1] ?? match[2] ?? "", port });
  },
};

/** Several values of a kind, comma separated, at least one. The message names the wrong item. */
export function list<T>(kind: Kind<T>, separator: string | RegExp = ","): Kind<readonly T[]> {
  return {
    ...kind,
    placeholder: `${kind.placeholder}[,…]`,
    file: "list",
    parse(text) {
      const values: T[] = [];
      for (const item of text.split(separator)) {
        const trimmed = item.trim();
        const parsed: Parsed<T> = trimmed === "" ? { ok: false } : kind.parse(trimmed);
        if (!parsed.ok) return { found: quote(trimmed), ...parsed };
        values.push(parsed.value);
      }
      return good(values);
    },
  };
}

function measured(
  placeholder: string,
  wanted: string,
  noun: string,
  parse: (text: string) => number | null,
  format: (value: number) => string,
  range: Range,
): Kind<number> {
  return {
    placeholder,
    wanted,
    parse(text) {
      const value = parse(text);
      if (value === null) return { ok: false };
      if (value >= range.min && value <= range.max) return good(value);
      return { ok: false, wanted: `${noun} from ${format(range.min)} to ${format(range.max)}` };
    },
  };
}

function good<T>(value: T): Parsed<T> {
  return { ok: true, value };
}

// URLs of the servers, and how a wrong one is printed. A URL carries its password in the open, so the
// printable form is built from parts that are known to be harmless; where the text cannot be taken
// apart with certainty nothing but its scheme is shown.

interface EndpointDefaults {
  readonly user: string;
  readonly database: string;
  /** For examples in messages. */
  readonly port: number;
  /** With `?database=` the path leads to the server, through something that stands before it. */
  readonly behind?: boolean;
}

const HOSTNAME = /^(?:[a-z0-9](?:[a-z0-9._-]*[a-z0-9.])?|\[[0-9a-f:.]+\])$/;
const SCHEME = /^(?:https?|wss?|tcp|tls|nats|native|clickhouse|influx|influxdb):\/\//i;
/** A bare address on a well-known port tells nothing. */
const BARE = /^[a-z0-9][a-z0-9.-]*:(?:80|443|4222|8080|8086|8123|8443|9000|9440)\/?$/i;

/** The text, quoted, without credentials, query and anything that might be a piece of them. */
function redactUrl(text: string): string {
  if (BARE.test(text)) return quote(text);
  const scheme = SCHEME.exec(text)?.[0].toLowerCase() ?? "";
  const hidden = quote(`${scheme}***`);
  const url = parseUrl(text);
  if (!url || scheme === "" || url.host === "") return hidden;
  const credentials = url.username !== "" || url.password !== "";
  // Any other "@" means that a "@", "/", "?" or "#" in the password may have cut the URL.
  if (text.split("@").length - 1 !== (credentials ? 1 : 0)) return hidden;
  return quote(
    scheme + (credentials ? "***@" : "") + url.host + (url.pathname === "/" ? "" : url.pathname) +
      (url.search ? "?***" : "") + (url.hash ? "#***" : ""),
  );
}

/**
 * One `http(s)://user:password@host:port/database`, percent-encoding undone; or, with
 * `?database=database`, the path that leads there.
 */
function parseEndpoint(text: string, defaults: EndpointDefaults): Parsed<Endpoint> {
  const example = `http(s)://user:password@host:${defaults.port}/database`;
  const wrong = (wanted: string, found?: string): Parsed<Endpoint> => ({
    ok: false,
    wanted,
    found: found ?? redactUrl(text),
  });
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(text)?.[1]?.toLowerCase();
  if (scheme !== "http" && scheme !== "https") {
    return wrong(`a URL of the HTTP interface (not of a native port) such as ${example}`);
  }
  const url = parseUrl(text);
  if (!url || !HOSTNAME.test(url.hostname)) {
    return wrong(`${example} with special characters percent-encoded`);
  }
  const inQuery = text.indexOf("?") >= 0 && !text.includes("@", text.indexOf("?"));
  const behind = defaults.behind === true && inQuery &&
    [...url.searchParams.keys()].join() === "database";
  if (!behind && (url.search !== "" || text.includes("?"))) {
    const names = inQuery ? [...url.searchParams].filter(([, value]) => value !== "") : [];
    const plain = names.map(([name]) => name).filter((name) => /^[A-Za-z_]{1,32}$/.test(name));
    return wrong(
      `${example} without a query string${defaults.behind ? " other than ?database=" : ""}`,
      plain.length > 0 ? `the query parameters ${plain.slice(0, 5).join(", ")}` : undefined,
    );
  }
  if (text.includes("#")) return wrong(`${example} without "#" (percent-encoded it is %23)`);
  const path = behind ? "" : url.pathname.replace(/^\/|\/$/g, "");
  if (path.includes("/")) {
    const other = "http(s)://host/path/?database=database";
    return wrong(
      `${example} with one database name as its path` +
        (defaults.behind ? `, or ${other} where a path leads to the server` : ""),
    );
  }
  const named = behind ? encodeURIComponent(url.searchParams.get("database")!) : path;
  const [user, password, database] = [url.username, url.password, named].map(decode);
  if (user === null || password === null || database === null) {
    return wrong(`${example} with "%" written as %25`);
  }
  const name = database || defaults.database;
  if (hasControl(name) || name.includes("/")) return wrong(`${example} with a printable database`);
  const way = behind && url.pathname !== "/" ? url.pathname : "";
  return {
    ok: true,
    value: {
      url: `${url.origin}${way}`,
      user: user || defaults.user,
      password: password ?? "",
      database: name,
      label: `${url.origin}${way === "" ? "/" : `${way}?database=`}${encodeURIComponent(name)}`,
    },
  };
}

/** One URL. */
export function endpoint(defaults: EndpointDefaults): Kind<Endpoint> {
  return {
    placeholder: "URL",
    wanted: `http(s)://user:password@host:${defaults.port}/database`,
    parse: (text) => parseEndpoint(text, defaults),
    show: redactUrl,
  };
}

/** A comma separates only where a new URL begins: one inside a password does not cut it in two. */
const NEXT_URL = /,\s*(?=[a-z][a-z0-9+.-]*:\/\/)/i;

/** One URL or several, comma separated. */
export function endpoints(defaults: EndpointDefaults): Kind<readonly Endpoint[]> {
  const one = endpoint(defaults);
  return {
    ...list(one, NEXT_URL),
    placeholder: "URL[,URL]",
    wanted: `${one.wanted}, several separated by commas`,
  };
}

/** An address carries no secret, unless credentials were put into it. */
const showAddress = (text: string) => /[@?]/.test(text) ? redactUrl(text) : quote(text);

const natsServer: Kind<string> = {
  placeholder: "URL",
  wanted:
    "nats://host:port or tls://host:port of a NATS server, or ws:// or wss:// of its websocket",
  show: showAddress,
  parse(text) {
    const url = /^(?:nats|tls|wss?):\/\//i.test(text) ? parseUrl(text) : null;
    if (!url || !HOSTNAME.test(url.hostname) || url.search !== "" || url.hash !== "") {
      return { ok: false, found: showAddress(text) };
    }
    if (url.username !== "" || url.password !== "") {
      return {
        ok: false,
        wanted:
          "an address without credentials (nats-user, nats-password and nats-token take them)",
        found: redactUrl(text),
      };
    }
    return good(`${url.protocol}//${url.host}${url.pathname === "/" ? "" : url.pathname}`);
  },
};

/** Addresses of NATS servers. */
export const natsServers: Kind<readonly string[]> = {
  ...list(natsServer, NEXT_URL),
  placeholder: "URL[,URL]",
};

function parseUrl(text: string): URL | null {
  try {
    return hasControl(text) || /\s/.test(text) ? null : new URL(text);
  } catch {
    return null;
  }
}

function decode(text: string): string | null {
  try {
    return decodeURIComponent(text);
  } catch {
    return null;
  }
}

function hasControl(text: string): boolean {
  return /\p{Cc}/u.test(text);
}

// Durations, sizes and counts: text in, number out, `null` for anything else. Each `format` writes what
// its `parse` reads back to the same number.

const DURATION =
  /^(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?$/;
const DURATION_MS = [86_400_000, 3_600_000, 60_000, 1000, 1] as const;
const DURATION_UNITS = ["d", "h", "m", "s", "ms"] as const;

const SIZE = /^(\d+(?:_\d+)*(?:\.\d+)?) ?(B|[KMGT]i?B)?$/i;
const BINARY_UNITS = [["TiB", 2 ** 40], ["GiB", 2 ** 30], ["MiB", 2 ** 20], [
  "KiB",
  2 ** 10,
]] as const;
const SIZE_BYTES: Readonly<Record<string, number>> = {
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
};

/** `500ms`, `1.5s`, `1m30s`, `1h` as whole milliseconds. A number without a unit is no duration. */
export function parseDurationMs(text: string): number | null {
  const match = DURATION.exec(text);
  if (!match || text === "") return null;
  const totalMs = DURATION_MS.reduce(
    (sum, unitMs, i) => sum + Number(match[i + 1] ?? 0) * unitMs,
    0,
  );
  return whole(totalMs);
}

/** In the largest unit that leaves a whole number: 90000 is `90s`. `ms` is a whole number >= 0. */
export function formatDuration(ms: number): string {
  if (ms === 0) return "0s";
  const i = DURATION_MS.findIndex((unitMs) => ms % unitMs === 0);
  return `${ms / (DURATION_MS[i] ?? 1)}${DURATION_UNITS[i] ?? "ms"}`;
}

/** `64KiB`, `1.5MiB` (powers of 1024), `10MB` (powers of 1000), `512B` or plain bytes, as bytes. */
export function parseBytes(text: string): number | null {
  const match = SIZE.exec(text);
  if (!match) return null;
  const unitBytes = SIZE_BYTES[(match[2] ?? "B").toLowerCase()] ?? NaN;
  return whole(Number((match[1] ?? "").replaceAll("_", "")) * unitBytes);
}

/** In the largest binary unit that leaves a whole number, else in plain bytes. */
export function formatBytes(bytes: number): string {
  for (const [unit, unitBytes] of BINARY_UNITS) {
    if (bytes >= unitBytes && bytes % unitBytes === 0) return `${bytes / unitBytes}${unit}`;
  }
  return String(bytes);
}

/** `1000000` or `1_000_000`. */
export function parseCount(text: string): number | null {
  return /^\d+(?:_\d+)*$/.test(text) ? whole(Number(text.replaceAll("_", ""))) : null;
}

/** Plain digits, as a flag takes them. */
export function formatCount(count: number): string {
  return String(count);
}

/** Decimal fractions such as 1.005s are not exact in binary: what rounding explains is whole. */
function whole(value: number): number | null {
  const rounded = Math.round(value);
  return Math.abs(value - rounded) < 1e-6 && Number.isSafeInteger(rounded) ? rounded : null;
}

// ── `write-tokens`: who may append, to which tables and how much. One a line or separated by spaces, so that
// commas are free for tables:
//
//     [LABEL:]TOKEN[=TABLES][;QUOTA]…        web:s3cret=events,logs_*;1000/s;5GiB/d
//
// In a file a `#` begins a comment. A token is kept as its hash alone. No message repeats what was written:
// a token with a sign that has a meaning here is cut by it, and its parts are no less secret.

/** Each has counts of its own in metrics and status. */
const MOST_TOKENS = 1000;
const MOST_QUOTAS = 8;

const LABEL = /^([A-Za-z0-9_-]{1,64}):/;
/** Signs of equality at its end belong to a token in base64. */
const TOKEN_AND_TABLES = /^([^=,:]+=*?)(?:=([^=]+))?$/;
const QUOTA_PERIOD_MS: Readonly<Record<string, number>> = { ...PERIOD_MS, d: 86_400_000 };

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
  return done({ label: named, hash: sha256(token), chars: token.length, tables, quotas });
}

/** Rows without a unit, bytes with one. */
function readQuota(text: string): Quota | null {
  const [amount = "", unit = "", ...more] = text.split("/");
  const periodMs = QUOTA_PERIOD_MS[unit];
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
