/**
 * `shishi spool ls|cat|verify|set-aside`: what lies on disk and is not stored yet, as the next start would
 * find it. The first three read the journal and segments, of a running collector as of one that has ended, and
 * change nothing; why a table is held, the running collector says.
 */

import { readdirSync } from "node:fs";
import { once } from "node:events";
import process from "node:process";
import { setTimeout } from "node:timers/promises";
import type { LeftBatch, SetAside, SetAsideWanted, Status } from "../contracts.ts";
import { LetterWriter } from "../dead/writer.ts";
import { leftBehind } from "../deliver/isolate.ts";
import { codeOf, messageOf, reasonOf } from "../kernel/errors.ts";
import { rowsAt } from "../kernel/ndjson.ts";
import { comparePositions } from "../kernel/positions.ts";
import { failed, type Result } from "../kernel/result.ts";
import { printable } from "../kernel/text.ts";
import { systemClock } from "../kernel/time.ts";
import { nodeFiles } from "../runtime/files.ts";
import { openFlock } from "../runtime/libc.ts";
import { boolean, matching } from "../settings/kinds.ts";
import type { SettingName, Settings } from "../settings/settings.ts";
import {
  copyToQuarantine,
  type DataDir,
  deadFolder,
  folderBeside,
  numberBeside,
} from "../spool/data_dir.ts";
import { readParts } from "../spool/journal.ts";
import { type Listing, listSpool, type Seen, survey } from "../spool/recovery.ts";
import { section, setting } from "../settings/spec.ts";
import { takeLock } from "../spool/lock.ts";
import { openDisk } from "../spool/open.ts";
import { type CliCommand, confirmOnTerminal, operandOf, settingsOrExitCode } from "./cli.ts";
import {
  askCollector,
  CLIENT_SETTINGS,
  clientFlags,
  clientOf,
  type ClientOptions,
  type NotTold,
} from "./collector_client.ts";

const WHERE = section("Flags", clientFlags("that says why a table is held"));

const VERBS = ["ls", "cat", "verify", "set-aside"] as const;
const EXPECTED = "ls [TABLE], cat TABLE, verify or set-aside TABLE";
const ABOUT = "What is in DATA-DIR and not stored yet, as the next start would find it: in the " +
  "journal and in segments, also those of a running collector and of orphaned folders. Nothing is " +
  "changed, but by set-aside.\n" +
  "ls counts batches, rows and bytes by table, and says why a table is held where the collector runs that " +
  "listens here, and up to where messages of a source were taken that its broker does not have as " +
  "acknowledged; of one table it lists the batches. cat prints the rows of a table, NDJSON, oldest batch " +
  "first. verify reads everything and names what does not agree with its checksum.\n" +
  "set-aside makes dead letters of what a table in trouble holds, to be looked at and replayed (shishi " +
  "dead). The running collector does it; without one, DATA-DIR is locked and worked on. Batches under way " +
  "stay, and those that may be stored already unless --maybe-stored is given.\n" +
  "Exit code 0, 1 when something is damaged (verify), stays (set-aside) or cannot be read, 2 for unusable " +
  "flags.";

const SET_ASIDE_SETTINGS: readonly SettingName[] = [...CLIENT_SETTINGS, "dead-max-bytes"];
const SET_ASIDE = section("Flags", [
  setting({
    name: "batch",
    kind: matching("ID", "the id of a batch, as spool ls TABLE shows it", /^[0-9a-f-]{36}$/i),
    default: null,
    meaning: "set-aside: only this batch",
  }),
  setting({
    name: "maybe-stored",
    kind: boolean,
    default: "false",
    meaning:
      "set-aside: also batches that were sent and may be stored already; a replay of these may store rows twice",
  }),
  setting({ name: "yes", kind: boolean, default: "false", meaning: "set-aside: do not ask" }),
  ...clientFlags("whose spool is meant"),
]);

export const spooled: CliCommand = {
  name: "spool",
  summary: "show what is on disk and not stored yet, or set it aside (ls, cat, verify, set-aside)",
  page: {
    usage: "shishi spool ls [TABLE] | cat TABLE | verify | set-aside TABLE",
    about: ABOUT,
    words: VERBS,
    only: SET_ASIDE_SETTINGS,
    extra: SET_ASIDE,
  },
  async run(argv) {
    const { operand: verb, rest } = operandOf(argv, SET_ASIDE);
    const { operand: table, rest: flags } = operandOf(rest, SET_ASIDE);
    const known = VERBS.find((name) => name === verb);
    const misfits = (known === "cat" || known === "set-aside") && table === null ||
      known === "verify" && table !== null;
    if (known === undefined || misfits) {
      const given = [verb, table].filter((word) => word !== null).join(" ").slice(0, 64);
      const found = given === "" ? "nothing" : JSON.stringify(given);
      err(`spool: expected ${EXPECTED}, got ${found}; see shishi spool --help`);
      return 2;
    }
    const loaded = known === "set-aside"
      ? null
      : settingsOrExitCode(flags, { command: "spool", only: CLIENT_SETTINGS, extra: WHERE });
    if (typeof loaded === "number") return loaded;
    try {
      if (loaded === null) return await setAside(rest);
      const dirs = foldersOf(loaded.settings.dataDir);
      if (known === "ls") {
        const client = clientOf(loaded.settings, loaded.extra);
        return table === null ? await ls(dirs, client) : await lsTable(dirs, table);
      }
      return known === "cat" ? await cat(dirs, table!) : await verify(dirs);
    } catch (error) {
      // `| head` has seen enough.
      if (codeOf(error) === "EPIPE") return 0;
      // Most often it is the folder of a service's own user.
      const denied = ["EACCES", "EPERM"].includes(codeOf(error));
      err(`spool: ${messageOf(error)}${denied ? "; run this as the user of the collector" : ""}`);
      return 1;
    }
  },
};

const out = (line: string) => console.log(line);
const err = (line: string) => console.error(`shishi: ${line}`);

/** The data folder, and those beside it. */
function foldersOf(dataDir: string): DataDir[] {
  const beside = readdirSync(dataDir).map(numberBeside).filter((number) => number > 0);
  const tell = (message: string, fields: object = {}) =>
    err(`${message} ${JSON.stringify(fields)}`);
  const log = { debug() {}, info() {}, warn: tell, error: tell };
  return [dataDir, ...beside.map((number) => folderBeside(dataDir, number))]
    .map((dataDir) => ({ files: nodeFiles, dataDir, log }));
}

/** What a start would find in all of them. */
async function* seenIn(dirs: readonly DataDir[]): AsyncGenerator<{ dir: DataDir; seen: Seen }> {
  for (const dir of dirs) {
    const listing: Listing = await listSpool(dir);
    for await (const seen of survey(dir, listing)) yield { dir, seen };
  }
}

interface InTable {
  batches: number;
  rows: number;
  bytes: number;
  oldestMs: number;
  readonly where: Set<string>;
}

/** Why tables are held; null where no collector tells. */
async function troublesOf(client: ClientOptions): Promise<ReadonlyMap<string, string> | null> {
  const told = await askCollector<Status>(client, { method: "GET", path: "/api/status" });
  if (told.kind !== "answer") {
    if (told.kind === "refused") err(told.problem);
    return null;
  }
  const tables = Object.entries(told.value.tables);
  return new Map(tables.flatMap(([table, { trouble }]) => trouble ? [[table, trouble]] : []));
}

/** Its batches, oldest first. */
async function lsTable(dirs: readonly DataDir[], table: string): Promise<number> {
  const lines: string[][] = [];
  for await (const { seen } of seenIn(dirs)) {
    const batch = batchOf(seen);
    if (batch?.table !== table) continue;
    const { id, rows, bytes, oldestMs, where, sent } = batch;
    const since = oldestMs === null ? "unknown" : new Date(oldestMs).toISOString();
    lines.push([id, String(rows), String(bytes), since, where, sent ? "yes" : "no"]);
  }
  if (lines.length === 0) err(`nothing of ${table} is in the spool`);
  else {
    const head = ["BATCH", "ROWS", "BYTES", "OLDEST", "WHERE", "SENT"];
    lines.sort(([, , , a], [, , , b]) => a! < b! ? -1 : 1);
    for (const line of grid([head, ...lines], 2)) out(line);
  }
  return 0;
}

async function ls(dirs: readonly DataDir[], client: ClientOptions): Promise<number> {
  const tables = new Map<string, InTable>();
  const marks = new Map<string, readonly string[]>();
  let problems = 0;
  for await (const { seen } of seenIn(dirs)) {
    if (problemOf(seen) !== null) problems++;
    if (seen.kind === "memos") addMarks(seen, marks);
    const batch = batchOf(seen);
    if (batch === null) continue;
    const { table, rows, bytes, oldestMs, where } = batch;
    const known = tables.get(table) ??
      { batches: 0, rows: 0, bytes: 0, oldestMs: Infinity, where: new Set<string>() };
    tables.set(table, known);
    known.batches++;
    known.rows += rows;
    known.bytes += bytes;
    known.oldestMs = Math.min(known.oldestMs, oldestMs ?? Infinity);
    known.where.add(where);
  }
  if (problems > 0) {
    err(
      `${problems} ${
        problems === 1 ? "thing is" : "things are"
      } not in order; see shishi spool verify`,
    );
  }
  if (tables.size === 0) err("nothing is in the spool");
  else printTables(tables, await troublesOf(client));
  if (marks.size === 0) return 0;
  if (tables.size > 0) out("");
  const sorted = [...marks].sort(([a], [b]) => a < b ? -1 : 1).map(([, mark]) => mark);
  for (const line of grid([["SOURCE", "PARTITION", "TAKEN UP TO"], ...sorted], 0)) out(line);
  return 0;
}

/** Of each partition the newest. */
function addMarks(
  { memos }: Seen & { kind: "memos" },
  marks: Map<string, readonly string[]>,
): void {
  for (const { memo } of memos) {
    if (!("position" in memo)) continue;
    const { source, partition, position } = memo;
    const name = JSON.stringify([source, partition]);
    const [, , known] = marks.get(name) ?? [];
    if (known !== undefined && comparePositions(known, position) >= 0) continue;
    marks.set(name, [printable(source), printable(partition), position]);
  }
}

/** @param troubles why some are held; null: not known. */
function printTables(
  tables: ReadonlyMap<string, InTable>,
  troubles: ReadonlyMap<string, string> | null,
): void {
  const lines = [...tables].sort(([a], [b]) => a < b ? -1 : 1).map(([table, one]) => [
    table,
    ...[one.batches, one.rows, one.bytes].map(String),
    one.oldestMs === Infinity ? "unknown" : new Date(one.oldestMs).toISOString(),
    [...one.where].sort().join(", "),
    ...(troubles === null ? [] : [troubles.get(table) ?? ""]),
  ]);
  const head = ["TABLE", "BATCHES", "ROWS", "BYTES", "OLDEST", "WHERE"];
  if (troubles !== null) head.push("HELD BECAUSE");
  for (const line of grid([head, ...lines], 3)) out(line);
}

/** What a batch that was seen holds; null for anything else. */
function batchOf(seen: Seen) {
  if (seen.kind === "batch") {
    const { head: { id, table, oldestMs }, rows, parts, trail } = seen;
    const bytes = parts.reduce((sum, { bytes }) => sum + bytes, 0);
    return { id, table, rows, bytes, oldestMs, where: "journal", sent: trail !== null };
  }
  if (seen.kind !== "segment" || seen.content.rows === 0) return null;
  const { file: { table, is: { id } }, content, oldestMs, trail } = seen;
  const bytes = content.good.reduce((sum, { start, end }) => sum + end - start, 0);
  const sent = trail !== null;
  return { id, table, rows: content.rows, bytes, oldestMs, where: "segments", sent };
}

async function cat(dirs: readonly DataDir[], table: string): Promise<number> {
  let found = false;
  for await (const { dir, seen } of seenIn(dirs)) {
    if (batchOf(seen)?.table !== table) continue;
    found = true;
    if (seen.kind === "batch") {
      for (const rows of await readParts(dir.files, seen.parts)) await print(rows);
    } else if (seen.kind === "segment") {
      for (const { start, end } of seen.content.good) await print(seen.bytes.subarray(start, end));
    }
  }
  if (!found) err(`nothing of ${table} is in the spool`);
  return 0;
}

async function print(bytes: Uint8Array): Promise<void> {
  if (!process.stdout.write(bytes)) await once(process.stdout, "drain");
}

/** A running collector writes while this reads: what is damaged is so when it is looked at again. */
const LOOKS = 3;
const BETWEEN_MS = 300;

async function verify(dirs: readonly DataDir[]): Promise<number> {
  let problems = new Set<string>();
  for (let look = 1; look <= LOOKS; look++) {
    if (look > 1) await setTimeout(BETWEEN_MS);
    const seen = await lookAt(dirs);
    problems = look === 1 ? seen.problems : problems.intersection(seen.problems);
    if (problems.size > 0) continue;
    out(`${seen.files} files, ${seen.batches} batches, ${seen.rows} rows: every checksum agrees`);
    return 0;
  }
  for (const problem of problems) out(problem);
  return 1;
}

async function lookAt(dirs: readonly DataDir[]) {
  const counts = { files: 0, batches: 0, rows: 0, problems: new Set<string>() };
  for await (const { seen } of seenIn(dirs)) {
    if (seen.kind === "journal") counts.files += seen.files.length;
    if (seen.kind === "segment") counts.files++;
    const batch = batchOf(seen);
    if (batch !== null) {
      counts.batches++;
      counts.rows += batch.rows;
    }
    const problem = problemOf(seen);
    if (problem !== null) counts.problems.add(problem);
  }
  return counts;
}

/** A line for people; null where all is in order. */
function problemOf(seen: Seen): string | null {
  switch (seen.kind) {
    case "foreign":
      return `${seen.file.path}: ${seen.file.reason}`;
    case "waits":
    case "unreadable":
      return `${seen.file.path}: cannot be read: ${reasonOf(seen.error)}`;
    case "damage": {
      const { start, end } = seen.range;
      return `${seen.file.path}: ${
        end - start
      } bytes from ${start} on do not agree with their checksum`;
    }
    case "gap":
      return `batch ${seen.head.id} of ${seen.head.table}: ${seen.rows} rows are missing in the journal`;
    case "segment": {
      const bytes = seen.content.bad.reduce((sum, { start, end }) => sum + end - start, 0);
      return bytes === 0
        ? null
        : `${seen.file.path}: ${bytes} bytes do not agree with their checksum`;
    }
    case "begun":
    case "journal":
    case "memos":
    case "batch":
      return null;
  }
}

/** Words to the left, figures to the right. @param figures so many columns of them, behind the first. */
function grid(rows: readonly (readonly string[])[], figures: number): string[] {
  const widths = rows[0]!.map((_, at) => Math.max(...rows.map((row) => row[at]!.length)));
  return rows.map((row) =>
    row.map((cell, at) =>
      at > 0 && at <= figures ? cell.padStart(widths[at]!) : cell.padEnd(widths[at]!)
    )
      .join("  ").trimEnd()
  );
}

// ── `shishi spool set-aside TABLE`: what a table in trouble holds becomes dead letters, by order of a person,
// who can look at them, mend them and replay them. The running collector does it; without one the data folder
// is locked and worked on, as the next start would find it.

async function setAside(argv: readonly string[]): Promise<number> {
  const { operand: table, rest } = operandOf(argv, SET_ASIDE);
  const loaded = settingsOrExitCode(rest, {
    command: "spool",
    only: SET_ASIDE_SETTINGS,
    extra: SET_ASIDE,
  });
  if (typeof loaded === "number") return loaded;
  const { settings, extra } = loaded;
  if (table === null) {
    err("spool set-aside: expected the name of a table, got nothing; see shishi spool --help");
    return 2;
  }
  const wanted = { table, batch: extra.batch, maybeStored: extra["maybe-stored"] };
  const what = wanted.batch === null ? `what is held of ${table}` : `batch ${wanted.batch}`;
  const confirm = extra.yes ? () => Promise.resolve(true) : confirmOnTerminal();
  if (confirm === null) {
    err(
      `${what} would become dead letters; expected --yes, because there is no terminal to ask on`,
    );
    return 2;
  }
  if (!await confirm(`Make dead letters of ${what}? [y/N] `)) {
    out("nothing set aside");
    return 1;
  }
  const done = await setAsideThere(clientOf(settings, extra), wanted);
  if (!("kind" in done)) return tell(done, wanted);
  const alone = done.kind === "away" || done.kind === "elsewhere";
  if (!alone || extra.url !== null) {
    err(done.problem);
    return 1;
  }
  const here = await setAsideHere(settings, wanted);
  if (here.ok) return tell(here.value, wanted);
  err(here.problem);
  return 1;
}

/** The collector stops where an answer would take too long, and is asked again. */
async function setAsideThere(
  client: ClientOptions,
  wanted: SetAsideWanted,
): Promise<SetAside | NotTold> {
  let before = { batches: 0, letters: 0, stored: 0 };
  for (;;) {
    const told = await askCollector<SetAside>(client, {
      method: "POST",
      path: "/api/spool/set-aside",
      body: wanted,
    });
    // Nothing is left that would be in trouble.
    if (told.kind !== "answer" && before.batches > 0) {
      err(told.problem);
      return { ...before, left: 0, leftRows: 0, reasons: [], more: false };
    }
    if (told.kind !== "answer") return told;
    const { batches, letters, stored } = told.value;
    before = {
      batches: before.batches + batches,
      letters: before.letters + letters,
      stored: before.stored + stored,
    };
    if (!told.value.more || batches === 0) return { ...told.value, ...before };
  }
}

/** Without a collector it is not known whether the table is in trouble; the order says so. */
async function setAsideHere(
  { dataDir, deadMaxBytes }: Settings,
  { table, batch, maybeStored }: SetAsideWanted,
): Promise<Result<SetAside>> {
  const log = { debug() {}, info() {}, warn: told, error: told };
  const dir: DataDir = { files: nodeFiles, dataDir, log };
  const opened = await openDisk({
    dir,
    clock: systemClock,
    onLost: () => err("another collector has taken the data folder"),
    lock: (folder, options) => takeLock(folder, { ...options, flock: openFlock }),
  });
  if (!opened.ok) return opened;
  const { spool, whole, close } = opened.value;
  const letters = new LetterWriter({
    files: nodeFiles,
    folder: deadFolder(dataDir),
    maxBytes: () => deadMaxBytes,
    quarantine: (name, bytes) => copyToQuarantine(dir, name, bytes),
    alone: whole,
    log: { ...log, warn() {} },
    clock: systemClock,
  });
  const done = { batches: 0, letters: 0, stored: 0, left: 0, leftRows: 0 };
  const reasons: LeftBatch[] = [];
  try {
    // What it remembers of requests and sources stays.
    for await (const found of spool.recover(() => {})) {
      if (found.table !== table || batch !== null && found.id !== batch) continue;
      const { id, rows, trail } = found;
      const given = trail.length > 0 && !maybeStored
        ? failed("it was sent, and may be stored already")
        : await spool.read(found);
      const dead = leftBehind(trail, rows, "set aside by order, while no collector ran");
      const places = dead.map(({ index }) => index);
      const kept = given.ok ? await letters.write(found, dead, rowsAt(given.value, places)) : given;
      if (kept.ok) {
        spool.remove(id);
        done.batches++;
        done.letters += dead.length;
        done.stored += rows - dead.length;
      } else {
        done.left++;
        done.leftRows += rows;
        reasons.push({ batch: id, rows, why: kept.problem });
      }
    }
  } finally {
    await letters.idle();
    await close();
  }
  return { ok: true, value: { ...done, reasons, more: false } };
}

function told(message: string, fields: object = {}): void {
  err(`${message} ${JSON.stringify(fields)}`);
}

/** Of batches that stay, so many are told one by one. */
const TOLD = 10;

function tell(
  { batches, letters, stored, left, leftRows, reasons }: SetAside,
  { table, maybeStored }: SetAsideWanted,
): number {
  if (batches + left === 0) {
    err(`nothing of ${table} is held`);
    return 1;
  }
  const besides = stored > 0 ? `; ${stored} rows of them are stored` : "";
  out(
    `${letters} rows of ${batches} ${
      batches === 1 ? "batch" : "batches"
    } are dead letters${besides}`,
  );
  if (batches > 0) out(`shishi dead show ${table}; after the repair, shishi dead replay ${table}`);
  if (left === 0) return 0;
  out(`${leftRows} rows of ${left} ${left === 1 ? "batch" : "batches"} stay`);
  for (const { batch, rows, why } of reasons.slice(0, TOLD)) {
    out(`  ${batch} (${rows} rows): ${why}`);
  }
  if (left > TOLD) out(`  and ${left - TOLD} more`);
  if (!maybeStored && reasons.some(({ why }) => /may be stored/.test(why))) {
    out("what may be stored already is set aside with --maybe-stored");
  }
  return 1;
}
