/**
 * `shishi spool set-aside TABLE`: what a table in trouble holds becomes dead letters, by order of a person,
 * who can look at them, mend them and replay them. The running collector does it; without one the data folder
 * is locked and worked on, as the next start would find it.
 */

import type { LeftBatch, SetAside, SetAsideWanted } from "../contracts.ts";
import { LetterWriter } from "../dead/writer.ts";
import { leftBehind } from "../deliver/trail.ts";
import { rowsAt } from "../kernel/ndjson.ts";
import { failed, type Result } from "../kernel/result.ts";
import { systemClock } from "../runtime/clock.ts";
import { nodeFiles } from "../runtime/files.ts";
import { openFlock } from "../runtime/libc.ts";
import { boolean, matching } from "../settings/kinds.ts";
import type { SettingName, Settings } from "../settings/settings.ts";
import { section, setting } from "../settings/spec.ts";
import { copyToQuarantine, type DataDir, deadFolder } from "../spool/data_dir.ts";
import { takeLock } from "../spool/lock.ts";
import { openDisk } from "../spool/open.ts";
import { confirmOnTerminal, operandOf, settingsOrExitCode } from "./cli.ts";
import {
  askCollector,
  CLIENT_SETTINGS,
  clientFlags,
  clientOf,
  type ClientOptions,
  type NotTold,
} from "./collector_client.ts";

export const SET_ASIDE_SETTINGS: readonly SettingName[] = [...CLIENT_SETTINGS, "dead-max-bytes"];
export const SET_ASIDE = section("Flags", [
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

const out = (line: string) => console.log(line);
const err = (line: string) => console.error(`shishi: ${line}`);

export async function setAside(argv: readonly string[]): Promise<number> {
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
