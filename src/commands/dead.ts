/**
 * `shishi dead ls|show|replay|purge`: what ClickHouse refused for good, looked at, sent again or
 * deleted. Works on the data-dir, beside a running collector or without one; only `replay` needs one.
 */

import { readFileSync } from "node:fs";
import { stat } from "node:fs/promises";
import process from "node:process";
import { codeOf } from "../kernel/errors.ts";
import { deadFolder } from "../spool/data_dir.ts";
import { createLetterbox } from "../dead/letterbox.ts";
import { takeLock } from "../spool/lock.ts";
import { systemClock } from "../runtime/clock.ts";
import { nodeFiles } from "../runtime/files.ts";
import type { SettingName, Settings, SettingSpec } from "../settings/settings.ts";
import {
  type CliCommand,
  confirmOnTerminal,
  operandOf,
  settingsOrExitCode,
  urlHere,
} from "./cli.ts";
import { EVERY_FLAG, LS, PURGE, REPLAY, SHOW } from "./dead_flags.ts";
import { listLetters, showLetters } from "./dead_list.ts";
import { giveLetters } from "./dead_post.ts";
import { purgeLetters } from "./dead_purge.ts";
import { replayTables } from "./dead_report.ts";
import { messageOf } from "../kernel/errors.ts";

const HERE: readonly SettingName[] = ["data-dir"];
const RUNNING: readonly SettingName[] = [
  "data-dir",
  "listen",
  "auth-tokens",
  "tls-cert",
  "tls-key",
];

const USAGE = "shishi dead ls [TABLE] | show [TABLE] | replay [TABLE] | purge TABLE|--all";
const ABOUT =
  "Rows that ClickHouse refuses for good are kept in DATA-DIR/dead/TABLE.ndjson, one a line, with " +
  "code, message, time, batch and the row's bytes.\n" +
  "ls counts them, show prints them. replay gives them to a running collector, which delivers them " +
  "like any row; a letter goes once its row is in ClickHouse, and replaying again, also after ^C or a " +
  "crash, stores nothing twice on a table with a deduplication window. purge deletes letters.\n" +
  "Exit code 0 when done (replay: when every row is stored), 1 otherwise, 2 for unusable flags.";

export const dead: CliCommand = {
  name: "dead",
  summary: "look at dead letters, send them again, delete them (ls, show, replay, purge)",
  page: {
    usage: USAGE,
    about: ABOUT,
    words: ["ls", "show", "replay", "purge"],
    only: RUNNING,
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
      err(`dead letters: ${messageOf(error)}${whatToDo(error)}`);
      return 1;
    }
  },
};

/** Most often it is the folder of a service's own user. */
function whatToDo(error: unknown): string {
  return ["EACCES", "EPERM"].includes(codeOf(error))
    ? "; run this as the user of the collector"
    : "";
}

const out = (line: string) => console.log(line);
const err = (line: string) => console.error(`shishi: ${line}`);
const terminal = () => process.stdout.isTTY === true;

function letterboxOf({ dataDir }: Settings) {
  return createLetterbox({ files: nodeFiles, dataDir, clock: systemClock });
}

/** Settings, flags and the table that is named, if any; or an exit code. */
function read<const E extends readonly SettingSpec[]>(
  argv: readonly string[],
  only: readonly SettingName[],
  extra: E,
) {
  const { operand, rest } = operandOf(argv, extra);
  const loaded = settingsOrExitCode(rest, { command: "dead", only, extra });
  if (typeof loaded === "number") return loaded;
  return { settings: loaded.settings, extra: loaded.extra, table: operand };
}

async function ls(argv: readonly string[]): Promise<number> {
  const given = read(argv, HERE, LS);
  if (typeof given === "number") return given;
  const io = { out, err, terminal: terminal() };
  await listLetters(letterboxOf(given.settings), given.table, given.extra.json, io);
  return 0;
}

async function show(argv: readonly string[]): Promise<number> {
  const given = read(argv, HERE, SHOW);
  if (typeof given === "number") return given;
  const { settings, extra, table } = given;
  const io = { out, err, terminal: terminal() };
  await showLetters(letterboxOf(settings), { ...extra, table }, io);
  return 0;
}

async function purge(argv: readonly string[]): Promise<number> {
  const given = read(argv, HERE, PURGE);
  if (typeof given === "number") return given;
  const { settings, extra, table } = given;
  if ((table !== null) === extra.all) {
    const found = extra.all ? "both" : "neither";
    err(`dead purge: expected the name of a table or --all, got ${found}`);
    return 2;
  }
  return await alone(settings, async () => {
    const letterbox = letterboxOf(settings);
    const beforeMs = extra.before === null ? null : systemClock.nowMs() - extra.before;
    const tables = table === null ? await letterbox.tables() : [table];
    const confirm = extra.yes ? () => Promise.resolve(true) : confirmOnTerminal();
    return await purgeLetters(
      { tables, beforeMs, code: extra.code },
      { letterbox, confirm, out, err },
    );
  });
}

async function replay(argv: readonly string[]): Promise<number> {
  const given = read(argv, RUNNING, REPLAY);
  if (typeof given === "number") return given;
  const { settings, extra, table } = given;
  let certificates: readonly string[] = settings.tls === null ? [] : [settings.tls.cert];
  if (extra["ca-file"] !== null) {
    try {
      certificates = [readFileSync(extra["ca-file"], "utf8")];
    } catch (error) {
      err(`--ca-file: expected a PEM file, got ${(error as Error).message}`);
      return 2;
    }
  }
  return await alone(settings, async () => {
    const letterbox = letterboxOf(settings);
    return await replayTables(table === null ? await letterbox.tables() : [table], {
      files: nodeFiles,
      dataDir: settings.dataDir,
      letterbox,
      code: extra.code,
      give: (options) => (letters, id, again) =>
        giveLetters(
          {
            ...options,
            url: extra.url ?? urlHere(settings),
            token: extra.token ?? settings.authTokens[0] ?? null,
            certificates,
            timeoutMs: extra.timeout,
            clock: systemClock,
          },
          letters,
          id,
          again,
        ),
      clock: systemClock,
      terminal: process.stderr.isTTY === true,
      write: (text) => void process.stderr.write(text),
      out,
      err,
    });
  });
}

/**
 * One command at a time changes letters. The collector neither heeds this lock nor waits for it.
 * Without a folder of letters there is nothing to do; one that cannot be looked at may hold any number.
 */
async function alone({ dataDir }: Settings, work: () => Promise<number>): Promise<number> {
  const folder = deadFolder(dataDir);
  try {
    await stat(folder);
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw error;
    err(`no dead letters in ${dataDir}`);
    return 0;
  }
  const lock = await takeLock(folder, { clock: systemClock });
  if ("problem" in lock) {
    err(lock.problem.replace("by another collector", "by another shishi dead"));
    return 1;
  }
  try {
    return await work();
  } finally {
    await lock.release();
  }
}
