/**
 * `shishi dead ls|show|replay|purge`: what ClickHouse refused for good, looked at, sent again or
 * deleted. The running collector does it; without one `ls` and `show` read the data folder, and `purge`
 * takes its lock first.
 */

import process from "node:process";
import { styleText } from "node:util";
import type { DeadTable, Purged, Replaying } from "../contracts.ts";
import { type Letter, readLetter, writeLetter } from "../dead/letter.ts";
import { asOf, identityOf, LetterStore } from "../dead/store.ts";
import { codeOf, messageOf } from "../kernel/errors.ts";
import { sleep, systemClock } from "../kernel/time.ts";
import { nodeFiles } from "../runtime/files.ts";
import { openFlock } from "../runtime/libc.ts";
import { boolean, count, duration } from "../settings/kinds.ts";
import type { Settings, SettingSpec } from "../settings/settings.ts";
import { section, setting } from "../settings/spec.ts";
import { deadFolder } from "../spool/data_dir.ts";
import { takeLock } from "../spool/lock.ts";
import { type CliCommand, confirmOnTerminal, operandOf, settingsOrExitCode } from "./cli.ts";
import {
  askCollector,
  CLIENT_SETTINGS,
  clientFlags,
  clientOf,
  type ClientOptions,
  type NotTold,
} from "./collector_client.ts";

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
  meaning:
    "show, replay, purge: only letters with this exception code of ClickHouse; 0: the collector's own",
});
const WHERE = clientFlags("whose letters are meant");
const LS = section(HEADING, [json, ...WHERE]);
const SHOW = section(HEADING, [
  json,
  code,
  setting({
    name: "limit",
    kind: count({ min: 1, max: 1_000_000 }),
    default: "20",
    meaning: "show: the newest so many, oldest of them first",
  }),
  ...WHERE,
]);
const REPLAY = section(HEADING, [
  code,
  setting({
    name: "timeout",
    kind: duration({ min: 1000, max: 24 * HOUR_MS }),
    default: "2m",
    meaning: "replay: how long to try while no row is stored",
  }),
  ...WHERE,
]);
const PURGE = section(HEADING, [
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
  ...WHERE,
]);
/** Of all four, each once. */
const EVERY_FLAG = [...new Map([...LS, ...SHOW, ...REPLAY, ...PURGE].map((f) => [f.name, f]))
  .values()];

const USAGE = "shishi dead ls [TABLE] | show [TABLE] | replay [TABLE] | purge TABLE|--all";
const ABOUT =
  "Rows that ClickHouse refuses for good, or their columns cannot hold, are kept in DATA-DIR/dead/TABLE.ndjson, one a line, with " +
  "code, message, time, batch and the row's bytes.\n" +
  "The running collector is asked: ls counts them, show prints them, purge deletes them. replay has it " +
  "deliver them like any row; a letter goes once its row is in ClickHouse, and replaying again, also " +
  "after ^C or a crash, stores nothing twice on a table with a deduplication window. Without a running " +
  "collector ls, show and purge work on DATA-DIR.\n" +
  "Exit code 0 when done (replay: when every row is stored), 1 otherwise, 2 for unusable flags.";

export const dead: CliCommand = {
  name: "dead",
  summary: "show dead letters, send them again, delete them (ls, show, replay, purge)",
  page: {
    usage: USAGE,
    about: ABOUT,
    words: ["ls", "show", "replay", "purge"],
    only: CLIENT_SETTINGS,
    extra: EVERY_FLAG,
  },
  async run(argv) {
    const { operand: verb, rest } = operandOf(argv, EVERY_FLAG);
    const commands: Readonly<Record<string, (argv: readonly string[]) => Promise<number>>> = {
      ls,
      show,
      replay,
      purge,
    };
    const command = verb !== null && Object.hasOwn(commands, verb) ? commands[verb] : undefined;
    if (command === undefined) {
      const found = verb === null ? "nothing" : JSON.stringify(verb.slice(0, 64));
      err(`dead: expected ls, show, replay or purge, got ${found}; see shishi dead --help`);
      return 2;
    }
    try {
      return await command(rest);
    } catch (error) {
      // Most often it is the folder of a service's own user.
      const denied = ["EACCES", "EPERM"].includes(codeOf(error));
      err(
        `dead letters: ${messageOf(error)}${
          denied ? "; run this as the user of the collector" : ""
        }`,
      );
      return 1;
    }
  },
};

const out = (line: string) => console.log(line);
const err = (line: string) => console.error(`shishi: ${line}`);

/** What a command line says, whichever of the four it is. */
interface Given {
  readonly settings: Settings;
  /** null: every table. */
  readonly table: string | null;
  readonly client: ClientOptions;
  /** It names a collector. */
  readonly named: boolean;
}

/** @returns the given, with its flags; or an exit code. */
function read<const E extends readonly SettingSpec[]>(argv: readonly string[], specs: E) {
  const { operand: table, rest } = operandOf(argv, specs);
  const loaded = settingsOrExitCode(rest, { command: "dead", only: CLIENT_SETTINGS, extra: specs });
  if (typeof loaded === "number") return loaded;
  const { settings, extra } = loaded;
  const where = extra as unknown as {
    readonly url: string | null;
    readonly token: string | null;
  };
  const named = where.url !== null;
  const client = clientOf(settings, where);
  return { given: { settings, table, client, named }, extra };
}

/** Where the letters are, and how many. */
interface Found {
  readonly tables: readonly DeadTable[];
  readonly asOf: string;
  /** Null: the collector has them. */
  readonly store: LetterStore | null;
  /** Why the folder is read. */
  readonly problem: string;
}

interface Counted {
  readonly code?: number | null;
  readonly beforeMs?: number | null;
}

/**
 * Asks the collector, and where there is none looks into the folder.
 * @param reading the letters are not changed: where the collector does not answer, they are read there.
 * @returns an exit code where there is nothing to work on.
 */
async function find(
  { settings: { dataDir }, table, client, named }: Given,
  { code = null, beforeMs = null }: Counted,
  reading: boolean,
): Promise<Found | number> {
  const told = await askCollector<Pick<Found, "tables" | "asOf">>(client, {
    method: "GET",
    path: "/api/dead/tables",
    parameters: { table, code, before: beforeMs },
  });
  if (told.kind === "answer") return { ...told.value, store: null, problem: "" };
  const alone = told.kind === "away" || told.kind === "elsewhere";
  if (!alone && !(reading && client.folder !== null)) return fail(told, named);
  const folder = deadFolder(dataDir);
  if (identityOf(folder) === null) {
    if (named) return fail(told, named);
    err(`no dead letters in ${dataDir}`);
    return 0;
  }
  if (named) err(`${told.problem}; this is ${dataDir}`);
  const store = new LetterStore({ files: nodeFiles, folder, clock: systemClock });
  const tables = await store.summaries({ table, code, beforeMs });
  return {
    tables,
    asOf: asOf(tables, beforeMs ?? systemClock.nowMs()),
    store,
    problem: told.problem,
  };
}

function fail({ kind, problem }: NotTold, named: boolean): number {
  err(kind === "away" && !named ? `${problem}; --url names the collector` : problem);
  return 1;
}

function sum(tables: readonly DeadTable[], of: "letters" | "damaged"): number {
  return tables.reduce((total, table) => total + table[of], 0);
}

// ── ls

/** Codes that `ls` names, the most frequent ones. */
const TOP_CODES = 3;

async function ls(argv: readonly string[]): Promise<number> {
  const parsed = read(argv, LS);
  if (typeof parsed === "number") return parsed;
  const found = await find(parsed.given, {}, true);
  if (typeof found === "number") return found;
  const tables = found.tables.map((table) => ({
    ...table,
    codes: table.codes.slice(0, TOP_CODES),
  }));
  if (parsed.extra.json) {
    for (const table of tables) out(JSON.stringify(table));
    return 0;
  }
  if (tables.length === 0) err("no dead letters");
  else for (const line of columnsOf(tables)) out(line);
  for (const { table, damaged } of tables) {
    if (damaged > 0) err(`${table}: ${damaged} lines cannot be read`);
  }
  return 0;
}

function columnsOf(tables: readonly DeadTable[]): string[] {
  const rows = [
    ["TABLE", "LETTERS", "BYTES", "OLDEST", "NEWEST", "CODES"],
    ...tables.map(({ table, letters, bytes, oldest, newest, codes }) => [
      table,
      String(letters),
      String(bytes),
      oldest ?? "-",
      newest ?? "-",
      codes.map(({ code, letters }) => `${code}: ${letters}`).join(", "),
    ]),
  ];
  const widths = rows[0]!.map((_, at) => Math.max(...rows.map((row) => row[at]!.length)));
  const isNumber = (at: number) => at === 1 || at === 2;
  return rows.map((row) =>
    row.map((cell, at) => isNumber(at) ? cell.padStart(widths[at]!) : cell.padEnd(widths[at]!))
      .join("  ").trimEnd()
  );
}

// ── show

async function show(argv: readonly string[]): Promise<number> {
  const parsed = read(argv, SHOW);
  if (typeof parsed === "number") return parsed;
  const { given, extra: { code, limit, json } } = parsed;
  const found = await find(given, { code }, true);
  if (typeof found === "number") return found;
  const letters: Letter[] = [];
  if (found.store === null) {
    const told = await askCollector(given.client, {
      method: "GET",
      path: "/api/dead/letters",
      parameters: { table: given.table, code, limit },
      onLine(line) {
        const letter = readLetter(line);
        if (letter !== null) letters.push(letter);
      },
    });
    if (told.kind !== "answer") return fail(told, given.named);
  } else {
    for await (const letter of found.store.newestFirst({ table: given.table, code })) {
      if (letters.push(letter) >= limit) break;
    }
  }
  for (const line of shown(letters.reverse(), json, process.stdout.isTTY === true)) out(line);
  const [all, damaged] = [sum(found.tables, "letters"), sum(found.tables, "damaged")];
  if (damaged > 0) err(`${damaged} lines cannot be read`);
  if (all === 0) err("no dead letters");
  else if (all > limit) err(`${limit} of ${all} letters; --limit ${all} shows all`);
  return 0;
}

/** Lines that show letters. A row stands on a line of its own, byte for byte but on a terminal. */
export function* shown(
  letters: readonly Letter[],
  json: boolean,
  terminal: boolean,
): Generator<string> {
  for (const [at, letter] of letters.entries()) {
    if (json) {
      yield writeLetter(letter).trimEnd();
      continue;
    }
    if (at > 0) yield "";
    const { time, table, code, batch, index, error, row } = letter;
    const place = letter.address === undefined
      ? `batch ${batch} row ${index}`
      : `message ${letter.address} of source ${letter.source ?? "?"}, row ${index}`;
    const head = visible(`${time}  ${table}  code ${code}  ${place}`);
    yield terminal ? styleText("bold", head) : head;
    const line = error.replace(/\p{Cc}+/gu, " ");
    yield terminal ? styleText("red", line) : line;
    yield terminal ? visible(row) : row;
  }
}

/** Bytes that a terminal obeys instead of showing; JSON reads the escape as the same character. */
function visible(text: string): string {
  return text.replace(
    /\p{Cc}/gu,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

// ── replay

const REASONS = 10;
const CLEAR = "\r\x1b[K";

async function replay(argv: readonly string[]): Promise<number> {
  const parsed = read(argv, REPLAY);
  if (typeof parsed === "number") return parsed;
  const { given, extra: { code, timeout } } = parsed;
  const found = await find(given, { code }, false);
  if (typeof found === "number") return found;
  const total = sum(found.tables, "letters");
  if (total === 0) {
    out("no dead letters to replay");
    return 0;
  }
  if (found.store !== null) {
    err(`${found.problem}; a replay needs the running collector of ${given.settings.dataDir}`);
    return 1;
  }
  // What is dead again meanwhile is left to the next replay.
  const wanted = { table: given.table, code, before: found.asOf };
  const replayed = await replayAll(given, wanted, total, timeout);
  for (const problem of replayed.problems) err(problem);
  for (const line of outcome(replayed)) out(line);
  return replayed.dead + replayed.left === 0 ? 0 : 1;
}

type Replayed = Omit<Replaying, "retryAfterS">;

/** Asks again and again, for a collector takes a bounded time for each answer. */
async function replayAll(
  { client }: Given,
  wanted: unknown,
  total: number,
  timeoutMs: number,
): Promise<Replayed> {
  const reasons = new Map<string, number>();
  const terminal = process.stderr.isTTY === true;
  const all = { stored: 0, dead: 0, left: total };
  let storedAtMs = systemClock.monotonicMs();
  for (;;) {
    const told = await askCollector<Replayed>(client, {
      method: "POST",
      path: "/api/dead/replay",
      body: wanted,
    });
    let problems: readonly string[];
    if (told.kind === "answer") {
      const { stored, dead, left } = told.value;
      problems = told.value.problems;
      if (stored > 0) storedAtMs = systemClock.monotonicMs();
      all.stored += stored;
      all.dead += dead;
      all.left = left;
      for (const { reason, letters } of told.value.reasons) {
        reasons.set(reason, (reasons.get(reason) ?? 0) + letters);
      }
    } else {
      problems = [told.kind === "lost" ? `${told.problem}; replay again` : told.problem];
    }
    const waitMs = 1000 * (told.retryAfterS ?? 0);
    const late = systemClock.monotonicMs() + waitMs >= storedAtMs + timeoutMs;
    if (all.left === 0 || told.retryAfterS === null || late) {
      if (terminal) process.stderr.write(CLEAR);
      const told = [...reasons].map(([reason, letters]) => ({ reason, letters }));
      return { ...all, reasons: told, problems };
    }
    const line = `${all.stored} of ${total} stored, ${all.dead} dead again` +
      ` (waiting: ${problems.join("; ")})`;
    process.stderr.write(terminal ? `${CLEAR}${line}` : `${line}\n`);
    await sleep(systemClock, waitMs);
  }
}

function outcome({ stored, dead, left, reasons }: Replayed): string[] {
  const most = reasons.toSorted((a, b) => b.letters - a.letters);
  const lines = [`${stored} stored`, `${dead} dead again`];
  for (const { reason, letters } of most.slice(0, REASONS)) {
    lines.push(`  ${letters} × ${reason.replace(/\p{Cc}+/gu, " ")}`);
  }
  if (most.length > REASONS) lines.push(`  and ${most.length - REASONS} more reasons`);
  return [...lines, `${left} could not be sent`];
}

// ── purge

async function purge(argv: readonly string[]): Promise<number> {
  const parsed = read(argv, PURGE);
  if (typeof parsed === "number") return parsed;
  const { given, extra: { code, before, all, yes } } = parsed;
  const { table } = given;
  if ((table !== null) === all) {
    err(`dead purge: expected the name of a table or --all, got ${all ? "both" : "neither"}`);
    return 2;
  }
  const beforeMs = before === null ? null : systemClock.nowMs() - before;
  const found = await find(given, { code, beforeMs }, false);
  if (typeof found === "number") return found;
  const letters = sum(found.tables, "letters");
  // Lines that cannot be read have neither code nor time.
  const everything = code === null && beforeMs === null;
  const damaged = everything ? sum(found.tables, "damaged") : 0;
  if (letters + damaged > 0) {
    const what = `${letters} dead letters of ${table ?? "all tables"}${unreadable(damaged)}`;
    const confirm = yes ? () => Promise.resolve(true) : confirmOnTerminal();
    if (confirm === null) {
      err(`${what} would be deleted; expected --yes, because there is no terminal to ask on`);
      return 2;
    }
    if (!await confirm(`Delete ${what}? Their rows are nowhere else. [y/N] `)) {
      out("nothing deleted");
      return 1;
    }
  }
  // What was written since was not asked about.
  const wanted = { table, code, beforeMs: beforeMs ?? Date.parse(found.asOf) };
  const purged = found.store === null
    ? await purgeThere(given, wanted, everything)
    : await purgeHere(given, found.store, wanted, everything);
  if (purged === null) return 1;
  out(`${purged.letters} letters${unreadable(purged.damaged)} deleted`);
  if (purged.bound > 0) {
    err(`${purged.bound} letters of an unfinished replay stay: finish it, or purge everything`);
  }
  return 0;
}

type Wanted = Parameters<LetterStore["purge"]>[0];

async function purgeThere(
  { client, named }: Given,
  { table, code, beforeMs }: Wanted,
  damaged: boolean,
): Promise<Purged | null> {
  const told = await askCollector<Purged>(client, {
    method: "DELETE",
    path: "/api/dead",
    parameters: { table, all: table === null ? true : null, code, before: beforeMs, damaged },
  });
  if (told.kind === "answer") return told.value;
  fail(told, named);
  return null;
}

/** No collector may begin to write letters meanwhile. */
async function purgeHere(
  { settings: { dataDir } }: Given,
  store: LetterStore,
  wanted: Wanted,
  damaged: boolean,
): Promise<Purged | null> {
  const lock = await takeLock(dataDir, { clock: systemClock, flock: openFlock });
  if ("problem" in lock) {
    err(lock.problem);
    return null;
  }
  try {
    for (const table of await store.tables()) {
      if (wanted.table === null || table === wanted.table) await store.setAside(table);
    }
    return await store.purge(wanted, damaged);
  } finally {
    await lock.release();
  }
}

function unreadable(lines: number): string {
  return lines > 0 ? ` and ${lines} lines that cannot be read` : "";
}
