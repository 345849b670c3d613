/** The flags of `shishi dead ls|show|replay|purge`, beside the settings that they take. */

import { boolean, count, duration, matching, text, token } from "../settings/kinds.ts";
import { section, setting } from "../settings/spec.ts";

const HOUR_MS = 3600 * 1000;
const HEADING = "Flags";

const json = setting({
  name: "json",
  kind: boolean,
  default: "false",
  meaning: "ls, show: one line of JSON a table or a letter",
});
const code = setting({
  name: "code",
  kind: count({ min: 0, max: 1_000_000 }),
  default: null,
  meaning: "show, replay, purge: only letters with this exception code of ClickHouse",
});
export const LS = section(HEADING, [json]);
export const SHOW = section(HEADING, [
  json,
  code,
  setting({
    name: "limit",
    kind: count({ min: 1, max: 1_000_000 }),
    default: "20",
    meaning: "show: the newest so many, oldest of them first",
  }),
]);
export const REPLAY = section(HEADING, [
  code,
  setting({
    name: "url",
    kind: matching("URL", "http(s)://host:port", /^https?:\/\/[^/?#\s@]+\/?$/),
    default: null,
    meaning: "replay: the collector that gets the rows; the one that listens here unless given",
  }),
  setting({
    name: "token",
    kind: token,
    default: null,
    meaning: "replay: bearer token; the first of auth-tokens unless given",
    secret: true,
  }),
  setting({
    name: "ca-file",
    kind: text("FILE", "the path of a PEM file"),
    default: null,
    meaning: "replay: PEM certificates to trust besides the well-known ones; tls-cert unless given",
  }),
  setting({
    name: "timeout",
    kind: duration({ min: 1000, max: 24 * HOUR_MS }),
    default: "2m",
    meaning: "replay: how long to try with the same rows",
  }),
]);
export const PURGE = section(HEADING, [
  code,
  setting({
    name: "before",
    kind: duration({ min: 0, max: 100 * 365 * 24 * HOUR_MS }),
    default: null,
    meaning: "purge: only letters older than this",
  }),
  setting({
    name: "all",
    kind: boolean,
    default: "false",
    meaning: "purge: the letters of all tables",
  }),
  setting({ name: "yes", kind: boolean, default: "false", meaning: "purge: do not ask" }),
]);
/** Of all four, each once. */
export const EVERY_FLAG = [...new Map([...LS, ...SHOW, ...REPLAY, ...PURGE].map((f) => [f.name, f]))
  .values()];
