/**
 * The kinds of values that settings have: how each is written, read and bounded. Nothing here knows a
 * setting by name; the messages say what was wanted, the loader adds where the value came from.
 */

import { type Kind, type Parsed, quote } from "./spec.ts";
import {
  formatBytes,
  formatCount,
  formatDuration,
  parseBytes,
  parseCount,
  parseDurationMs,
} from "./units.ts";

/** Where a server listens. Port 0 lets the system choose. */
export interface ListenAddress {
  readonly hostname: string;
  readonly port: number;
}

/** `127.0.0.1:8080`, `[::1]:8080`: as it is written, and as it stands in a URL. */
export function writeAddress({ hostname, port }: ListenAddress): string {
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

/** So many in a period. */
export interface Rate {
  readonly count: number;
  readonly periodMs: number;
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
export const identifier: Kind<string> = matching(
  "NAME",
  "a table name: letters, digits and _, not beginning with a digit, 127 at most",
  /^[A-Za-z_][A-Za-z0-9_]{0,126}$/,
);

/** A table name or a pattern of names. */
export const tableGlob: Kind<string> = matching(
  "NAME|GLOB",
  "table names or patterns such as logs_*: letters, digits, _, * and ?, separated by commas",
  /^[A-Za-z_*?][A-Za-z0-9_*?]{0,126}$/,
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
  "tokens of visible ASCII characters, separated by commas",
  /^[\x21-\x2b\x2d-\x7e]+$/,
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

/** `127.0.0.1:8080`, `localhost:8080`, `[::1]:8080`, or `:8080` for every IPv4 address. */
export const listenAddress: Kind<ListenAddress> = {
  placeholder: "ADDRESS:PORT",
  wanted: "address:port such as 127.0.0.1:8080, [::1]:8080 or :8080",
  parse(text) {
    const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})))?:(\d{1,5})$/
      .exec(text);
    const port = Number(match?.[3]);
    if (!match || port > 65535) return { ok: false };
    return good({ hostname: match[1] ?? match[2] ?? "0.0.0.0", port });
  },
};

/** Several values of a kind, comma separated, at least one. The message names the wrong item. */
export function list<T>(kind: Kind<T>): Kind<readonly T[]> {
  return {
    ...kind,
    placeholder: `${kind.placeholder}[,…]`,
    file: "list",
    parse(text) {
      const values: T[] = [];
      for (const item of text.split(",")) {
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
