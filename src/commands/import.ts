/**
 * `shishi import FILE… --table T`: files of rows, of any size, into a table. What is acknowledged is noted in a
 * small file beside each, so that an import that was killed goes on where it was; the one batch of which it
 * is not known travels under the same idempotency key again, and is stored once.
 */

import { Buffer } from "node:buffer";
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import process from "node:process";
import { messageOf, nothingThere } from "../kernel/errors.ts";
import { fileNameOf } from "../kernel/names.ts";
import { systemClock } from "../kernel/time.ts";
import { onStopSignal } from "../runtime/host.ts";
import { oneOf, tableName, text } from "../settings/kinds.ts";
import { section, setting } from "../settings/spec.ts";
import { type CliCommand, operandOf, settingsOrExitCode, tellProblems } from "./cli.ts";
import {
  CONTENT_TYPES,
  formatOf,
  halves,
  identityOf,
  type RowsBatch,
  RowsFile,
  type RowsFormat,
} from "./rows_file.ts";
import {
  destinationOf,
  grouped,
  ProgressLine,
  Sender,
  SENDER_FLAGS,
  SENDER_SETTINGS,
  type Sent,
} from "./sender.ts";

const FLAGS = section("Flags", [
  setting({
    name: "table",
    kind: tableName,
    default: null,
    meaning: "the table that the rows are for; needed",
  }),
  setting({
    name: "format",
    kind: oneOf(["auto", "ndjson", "csv", "tsv"]),
    default: "auto",
    meaning: "what the files hold; auto = by their names, NDJSON where those do not tell",
  }),
  setting({
    name: "state-dir",
    kind: text("FOLDER", "the path of a folder"),
    default: null,
    meaning: "where it is noted what is done; beside each file unless given",
  }),
  ...SENDER_FLAGS,
]);

const ABOUT =
  "Sends files of rows to a collector: NDJSON (one JSON object a line), CSV or TSV with a header line; plain, " +
  "gzip or zstd, which their first bytes tell.\n" +
  "What is done is noted in FILE.TABLE.shishi-import: an import that was ended, by ^C or kill -9 too, goes on " +
  "where it was when it is started again, and stores nothing twice (within idempotency-window, on a table with a " +
  "deduplication window). A collector that is full, stopping or away is waited for. Rows that are refused are " +
  "printed with file and line. The bearer token comes from SHISHI_TOKEN or --token-file.\n" +
  "Exit code 0 when every row of every file was acknowledged, 1 otherwise, 2 for unusable flags.";

export const importFiles: CliCommand = {
  name: "import",
  summary: "send files of rows to a table: NDJSON, CSV, TSV, packed or not",
  page: {
    usage: "shishi import FILE... --table TABLE",
    about: ABOUT,
    files: true,
    only: SENDER_SETTINGS,
    extra: FLAGS,
  },
  async run(argv) {
    const files: string[] = [];
    let rest = argv;
    for (let found = operandOf(rest, FLAGS); found.operand !== null;) {
      files.push(found.operand);
      rest = found.rest;
      found = operandOf(rest, FLAGS);
    }
    const options = { command: "import", only: SENDER_SETTINGS, extra: FLAGS };
    const loaded = settingsOrExitCode(rest, options);
    if (typeof loaded === "number") return loaded;
    const { settings, extra } = loaded;
    const to = destinationOf(settings, extra);
    const problems = [
      ...(files.length === 0 ? ["import: expected one file or several"] : []),
      ...(extra.table === null ? ["--table: is needed, the table that the rows are for"] : []),
      ...(to.ok ? [] : [to.problem]),
    ];
    if (extra.table === null || !to.ok || problems.length > 0) {
      tellProblems(problems, "import");
      return 2;
    }
    const giveUp = new AbortController();
    const unlisten = onStopSignal(() => giveUp.abort());
    const sender = new Sender(to.value, extra.table, systemClock);
    let code = 0;
    for (const path of files) {
      const format = extra.format === "auto" ? formatOf(path) : extra.format;
      const given = { path, format, table: extra.table, stateDir: extra["state-dir"] };
      if (!await new Importing(given, sender, giveUp.signal).run()) code = 1;
      if (giveUp.signal.aborted) break;
    }
    unlisten();
    sender.close();
    return code;
  },
};

interface Given {
  readonly path: string;
  readonly format: RowsFormat;
  readonly table: string;
  readonly stateDir: string | null;
}

/** What is noted of a file. */
interface State {
  readonly version: 1;
  readonly identity: string;
  /** Where the next batch begins. */
  offset: number;
  line: number;
  accepted: number;
  refused: number;
  done: boolean;
}

/** Where there is no terminal. */
const TOLD_MS = 10_000;
const BAR = 20;

class Importing {
  readonly #given: Given;
  readonly #sender: Sender;
  readonly #signal: AbortSignal;
  readonly #file: RowsFile;
  readonly #progress: ProgressLine;
  readonly #startedMs = systemClock.monotonicMs();
  #statePath = "";
  #state: State | null = null;
  #bytes = 0;
  #rowsNow = 0;
  /** Why no more is sent. */
  #problem: string | null = null;

  constructor(given: Given, sender: Sender, signal: AbortSignal) {
    this.#given = given;
    this.#sender = sender;
    this.#signal = signal;
    this.#file = new RowsFile(given.path, given.format);
    this.#progress = new ProgressLine(systemClock, TOLD_MS, () => this.#line());
  }

  /** Whether every row was acknowledged. */
  async run(): Promise<boolean> {
    try {
      const begun = await this.#begin();
      if (!begun) return this.#state?.done === true && this.#state.refused === 0;
      await this.#sendAll();
    } catch (error) {
      this.#problem = messageOf(error);
    }
    return this.#end();
  }

  /** Whether there is anything to send. */
  async #begin(): Promise<boolean> {
    const { path, table, stateDir } = this.#given;
    const { identity, bytes } = await identityOf(path);
    this.#bytes = bytes;
    const name = `${fileNameOf(table)}.shishi-import`;
    this.#statePath = stateDir === null
      ? `${path}.${name}`
      : join(stateDir, `${basename(path)}.${identity.slice(0, 8)}.${name}`);
    const noted = readState(this.#statePath);
    if (noted !== null && noted.identity !== identity) {
      throw new Error(
        `has changed since its import began; remove ${this.#statePath} to import all of it`,
      );
    }
    this.#state = noted ??
      { version: 1, identity, offset: 0, line: 1, accepted: 0, refused: 0, done: false };
    if (this.#state.done) {
      const counts = `${grouped(this.#state.accepted)} acknowledged, ${
        grouped(this.#state.refused)
      } refused`;
      this.#progress.tell(`${path}: was imported before (${counts}), says ${this.#statePath}`);
      this.#progress.end();
      return false;
    }
    // Before the first batch: a folder that cannot be written to is no place to go on from.
    this.#note();
    return true;
  }

  async #sendAll(): Promise<void> {
    const state = this.#state!;
    let sending: Promise<void> = Promise.resolve();
    try {
      for await (const batch of this.#file.batches(state.offset)) {
        if (batch.line === 1) this.#checkFirst(batch);
        await sending;
        if (this.#problem !== null || this.#signal.aborted) return;
        sending = this.#sendAndNote(batch);
        // It is awaited with the next batch; until then it must not count as unhandled.
        sending.catch(() => {});
      }
    } finally {
      await sending;
    }
    if (this.#problem !== null || this.#signal.aborted) return;
    state.done = true;
    this.#note();
  }

  async #sendAndNote(batch: RowsBatch): Promise<void> {
    if (!await this.#send(batch)) return;
    const state = this.#state!;
    state.offset = batch.end;
    state.line = batch.endLine;
    this.#note();
  }

  /** Text that is JSON, but not one object a line, would be cut in the middle of values. */
  #checkFirst({ body }: RowsBatch): void {
    if (this.#given.format !== "ndjson") return;
    const [first = ""] = Buffer.from(body.subarray(0, 4096)).toString().trimStart().split(/\r?\n/);
    const array = /^\ufeff?\[/.test(first);
    if (array || /^\ufeff?\{\s*$/.test(first)) {
      const what = array ? "an array" : "objects over several lines";
      throw new Error(
        `holds ${what} and not one object a line; jq -c '${array ? ".[]" : "."}' makes it so`,
      );
    }
  }

  /** Whether the batch was acknowledged. */
  async #send(batch: RowsBatch): Promise<boolean> {
    const { identity } = this.#state!;
    const key = `import-${identity}-${batch.offset}-${batch.body.length}`;
    const body = Buffer.concat([this.#file.header, batch.body]);
    const contentType = CONTENT_TYPES[this.#given.format];
    const sent = await this.#sender.send({ body, contentType, key }, this.#signal);
    switch (sent.kind) {
      case "acknowledged":
        this.#acknowledged(batch, sent);
        return true;
      case "large":
        return await this.#halve(batch, sent.problem);
      case "hopeless":
        this.#problem = sent.problem;
        return false;
      case "given up":
        return false;
    }
  }

  async #halve(batch: RowsBatch, problem: string): Promise<boolean> {
    const pieces = halves(batch, this.#given.format);
    if (pieces === null) {
      this.#problem = `the row at line ${batch.line}: ${problem}`;
      return false;
    }
    for (const piece of pieces) if (!await this.#send(piece)) return false;
    return true;
  }

  #acknowledged(batch: RowsBatch, sent: Sent & { kind: "acknowledged" }): void {
    const { accepted, rejected, errors, duplicate } = sent;
    const state = this.#state!;
    state.accepted += accepted;
    state.refused += rejected;
    this.#rowsNow += accepted + rejected;
    if (rejected === 0) return;
    const { path, format } = this.#given;
    const filled = format === "ndjson" ? filledLines(batch.body) : [];
    for (const { index, line, error } of errors) {
      const at = format === "ndjson"
        ? batch.line + (filled[index] ?? NaN)
        : batch.line + (line ?? NaN) - 1 - this.#file.headerLines;
      this.#progress.tell(`${path}:${at}: ${error}`);
    }
    const untold = rejected - errors.length;
    if (untold === 0) return;
    const more = errors.length > 0 ? `${grouped(untold)} more` : grouped(untold);
    const told = duplicate ? ", as was answered before" : "";
    this.#progress.tell(
      `${path}: lines ${batch.line} to ${batch.endLine - 1}: ${more} refused${told}`,
    );
  }

  #note(): void {
    const part = `${this.#statePath}.part`;
    try {
      writeFileSync(part, `${JSON.stringify(this.#state)}\n`);
      renameSync(part, this.#statePath);
    } catch (error) {
      throw new Error(
        `what is done cannot be noted (${messageOf(error)}); --state-dir names another folder`,
      );
    }
  }

  #line(): string {
    const { path } = this.#given;
    const seconds = (systemClock.monotonicMs() - this.#startedMs) / 1000;
    const share = this.#bytes === 0 ? 1 : this.#file.readBytes / this.#bytes;
    const counts = `${grouped(this.#rowsNow)} rows, ${grouped(this.#rowsNow / seconds)}/s`;
    const percent = `${Math.floor(share * 100)}%`;
    const { waiting } = this.#sender;
    if (waiting !== null) return `${path}: ${percent}, ${counts}, waiting: ${waiting.problem}`;
    if (process.stderr.isTTY !== true) return `${path}: ${percent}, ${counts}`;
    const full = Math.floor(share * BAR);
    const bar = `${"█".repeat(full)}${"░".repeat(BAR - full)}`;
    const size = `${mib(this.#file.readBytes)} of ${mib(this.#bytes)} MiB`;
    const left = share > 0 ? `, ${clockOf(seconds / share - seconds)} left` : "";
    return `${basename(path)} ${bar} ${percent} of ${size}, ${counts}${left}`;
  }

  #end(): boolean {
    const { path } = this.#given;
    this.#progress.end();
    const state = this.#state;
    if (state !== null) {
      const seconds = (systemClock.monotonicMs() - this.#startedMs) / 1000;
      const done = state.done ? "" : `, up to line ${grouped(state.line - 1)}`;
      const counts = `${grouped(state.accepted)} acknowledged, ${grouped(state.refused)} refused`;
      this.#progress.tell(`${path}: ${counts}${done}, in ${seconds.toFixed(1)} s`);
    }
    if (this.#problem !== null) this.#progress.tell(`${path}: ${this.#problem}`);
    else if (state?.done === false) {
      this.#progress.tell(`${path}: ended; the same command goes on from there`);
    }
    this.#progress.end();
    return this.#problem === null && state?.done === true && state.refused === 0;
  }
}

/** Null: there is none, or none that can be read. */
function readState(path: string): State | null {
  try {
    const state = JSON.parse(readFileSync(path, "utf8"));
    return state?.version === 1 ? state : null;
  } catch (error) {
    return error instanceof SyntaxError ? null : nothingThere(error, null);
  }
}

/** The numbers, from 0, of the lines that hold anything. */
function filledLines(body: Uint8Array): number[] {
  const lines = Buffer.from(body.buffer, body.byteOffset, body.length).toString("latin1").split(
    "\n",
  );
  return lines.flatMap((line, at) => line.trim() === "" ? [] : [at]);
}

function mib(bytes: number): string {
  return (bytes / 1024 ** 2).toFixed(1);
}

/** `1:05` */
function clockOf(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const minutes = Math.floor(whole / 60);
  const clock = `${minutes % 60}:${String(whole % 60).padStart(2, "0")}`;
  return minutes < 60 ? clock : `${Math.floor(minutes / 60)}:${clock.padStart(5, "0")}`;
}
