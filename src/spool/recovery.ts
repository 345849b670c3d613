/**
 * What an earlier process left in the spool, made ready to be sent. Runs in the background while new
 * rows are taken: it looks only at what was there when the listing was made.
 *
 * A file is trusted by its seals and by nothing else. Groups that verify are recovered; every other
 * byte goes to `quarantine/`, is counted and logged. No byte is deleted here and nothing is thrown: a
 * file that cannot be read or moved costs itself and no start.
 */

import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import type { Files } from "../contracts.ts";
import { codeOf, reasonOf } from "../kernel/errors.ts";
import { tableOfFolder } from "../kernel/names.ts";
import { count, eventTypeOf } from "../kernel/ndjson.ts";
import { copyToQuarantine, type DataDir, moveToQuarantine, spoolFolder } from "./data_dir.ts";
import {
  mintedMs,
  parseSegmentName,
  type Range,
  readSegment,
  roughRows,
  type SegmentContent,
  type SegmentName,
} from "./segment.ts";

/** The rows of one segment that can be trusted. */
export interface RecoveredSegment extends SegmentName {
  readonly kind: "segment";
  readonly table: string;
  readonly path: string;
  readonly rows: number;
  /** Of the good rows. */
  readonly bytes: number;
  /** Row counts by event type; empty for shape `row`. */
  readonly types: Map<string, number>;
  /** When the batch was begun, from its id, epoch milliseconds; null for an id without a time. */
  readonly oldestMs: number | null;
  /** Where the good rows lie in the file. */
  readonly ranges: readonly Range[];
  /**
   * Bytes of it could not be copied to quarantine. Once its rows are stored the file must be moved
   * there (`moveToQuarantine`) where another one is removed.
   */
  readonly keep: boolean;
}

/** Something in the spool that is not sent: a whole file, or the damaged parts of one. */
export interface Quarantined {
  readonly kind: "quarantined";
  /** Null for what lies outside every table's folder. */
  readonly table: string | null;
  /** Where it was found. */
  readonly path: string;
  /** Where it lies in quarantine; empty: it could not be brought there and is where it was. */
  readonly to: readonly string[];
  /** About so many; 0 for what could not be read. */
  readonly rows: number;
  readonly bytes: number;
  readonly reason: string;
}

interface FoundFile {
  readonly table: string | null;
  readonly name: string;
  readonly path: string;
}

/** What lay in the spool at one moment. */
export interface Found {
  /** Oldest first, all tables together. */
  readonly segments: readonly (FoundFile & { readonly table: string; readonly is: SegmentName })[];
  readonly foreign: readonly (FoundFile & { readonly reason: string })[];
}

/** These say that we, or the machine, are short of something; the file itself may be in order. */
const NOT_ITS_FAULT = ["EMFILE", "ENFILE", "ENOMEM", "EAGAIN", "EINTR", "ETIMEDOUT", "ESTALE"];

/** Rows that are looked at before others get a turn. */
const ROWS_A_TURN = 2000;

/** To be called before the first new segment is created. Never rejects. */
export async function listSegments({ files, dataDir, log }: DataDir): Promise<Found> {
  const segments: Found["segments"][number][] = [];
  const foreign: Found["foreign"][number][] = [];
  const list = async (folder: string) => {
    try {
      return await files.list(folder);
    } catch (error) {
      if (codeOf(error) !== "ENOENT") {
        log.error("spool folder cannot be read; its rows wait there for the next start", {
          folder,
          error: reasonOf(error),
        });
      }
      return [];
    }
  };
  const spool = spoolFolder(dataDir);
  for (const entry of await list(spool)) {
    const named = entry.replace(/\/$/, "");
    const folder = join(spool, named);
    const table = tableOfFolder(named);
    if (!entry.endsWith("/") || table === null) {
      const reason = entry.endsWith("/") ? "no table's name" : "no table's folder";
      foreign.push({ table: null, name: named, path: folder, reason });
      continue;
    }
    for (const inside of await list(folder)) {
      const name = inside.replace(/\/$/, "");
      const file = { table, name, path: join(folder, name) };
      const is = parseSegmentName(name);
      if (inside.endsWith("/")) foreign.push({ ...file, reason: "a folder, not a file" });
      else if (is === null) foreign.push({ ...file, reason: "not the name of a spool file" });
      else segments.push({ ...file, is });
    }
  }
  segments.sort((a, b) => a.is.id < b.is.id ? -1 : a.is.id > b.is.id ? 1 : 0);
  return { segments, foreign };
}

/**
 * Reads, verifies and yields everything that was found, one file at a time; takes foreign files out of
 * the way first. A file with damaged parts yields twice.
 */
export async function* recover(
  dir: DataDir,
  found?: Found,
): AsyncGenerator<RecoveredSegment | Quarantined, void, undefined> {
  const { segments, foreign } = found ?? await listSegments(dir);
  for (const file of foreign) yield await moveWhole(dir, file, file.reason);
  for (const file of segments) {
    let bytes: Uint8Array;
    try {
      bytes = await dir.files.read(file.path);
    } catch (error) {
      const code = codeOf(error);
      if (NOT_ITS_FAULT.includes(code)) {
        dir.log.error("spool file cannot be read at the moment; it waits for the next start", {
          file: file.path,
          error: reasonOf(error),
        });
      } else if (code !== "ENOENT") {
        yield await moveWhole(dir, file, `cannot be read: ${reasonOf(error)}`);
      }
      continue;
    }
    if (bytes.length === 0) {
      await removeEmpty(dir, file);
      continue;
    }
    const content = readSegment(bytes);
    if (content.rows === 0) {
      yield await moveWhole(dir, file, "no group of rows agrees with its checksum", bytes);
      continue;
    }
    let keep = false;
    if (content.bad.length > 0) {
      const damaged = await copyBad(dir, file, bytes, content);
      keep = damaged.to.length < content.bad.length;
      yield damaged;
    }
    yield {
      kind: "segment",
      ...file.is,
      table: file.table,
      path: file.path,
      rows: content.rows,
      bytes: content.good.reduce((sum, { start, end }) => sum + end - start, 0),
      types: file.is.shape === "event" ? await typesOf(bytes, content.good) : new Map(),
      oldestMs: mintedMs(file.is.id),
      ranges: content.good,
      keep,
    };
  }
}

/**
 * The good rows of a segment once more, to be sent; pieces in order. Less than before when the disk has
 * spoiled it since: compare the bytes. Rejects with the disk's error.
 */
export async function loadSegment(files: Files, path: string): Promise<Uint8Array[]> {
  const bytes = await files.read(path);
  return readSegment(bytes).good.map(({ start, end }) => bytes.subarray(start, end));
}

/** A process that ends between making a file and its first row leaves one without any. */
async function removeEmpty({ files, log }: DataDir, { table, path }: FoundFile): Promise<void> {
  try {
    await files.remove(path);
    log.info("spool file without rows removed", { table, file: path });
  } catch (error) {
    log.warn("spool file without rows cannot be removed", {
      table,
      file: path,
      error: reasonOf(error),
    });
  }
}

async function moveWhole(
  dir: DataDir,
  { table, name, path }: FoundFile,
  reason: string,
  content: Uint8Array = new Uint8Array(0),
): Promise<Quarantined> {
  const whole = { start: 0, end: content.length };
  const rows = roughRows(content, whole);
  const fields = { table, file: path, reason, rows, bytes: content.length };
  const to: string[] = [];
  try {
    to.push(await moveToQuarantine(dir, path, table === null ? name : `${table}.${name}`));
    dir.log.warn("spool file moved to quarantine", { ...fields, quarantine: to[0] });
  } catch (error) {
    dir.log.error("spool file cannot be moved to quarantine; it stays where it is", {
      ...fields,
      error: reasonOf(error),
    });
  }
  return { kind: "quarantined", table, path, to, rows, bytes: content.length, reason };
}

async function copyBad(
  dir: DataDir,
  { table, name, path }: FoundFile,
  bytes: Uint8Array,
  { bad, rows: recovered }: SegmentContent,
): Promise<Quarantined> {
  const to: string[] = [];
  let failed: unknown = null;
  let rows = 0;
  let size = 0;
  for (const range of bad) {
    rows += roughRows(bytes, range);
    size += range.end - range.start;
    try {
      const part = bytes.subarray(range.start, range.end);
      to.push(await copyToQuarantine(dir, `${table}.${name}.${range.start}`, part));
    } catch (error) {
      failed ??= error;
    }
  }
  const reason = "does not agree with its checksum";
  const fields = { table, file: path, rows, bytes: size, rows_recovered: recovered };
  if (failed === null) {
    dir.log.warn("part of a spool file is damaged; copied to quarantine, the rest is recovered", {
      ...fields,
      quarantine: to[0],
      parts: to.length,
    });
  } else {
    dir.log.error("part of a spool file is damaged and cannot be copied to quarantine; kept", {
      ...fields,
      error: reasonOf(failed),
    });
  }
  return { kind: "quarantined", table, path, to, rows, bytes: size, reason };
}

async function typesOf(bytes: Uint8Array, good: readonly Range[]): Promise<Map<string, number>> {
  const types = new Map<string, number>();
  const decoder = new TextDecoder();
  let rows = 0;
  for (const { start, end } of good) {
    for (let at = start, next; at < end; at = next) {
      next = bytes.indexOf(0x0a, at) + 1;
      count(types, eventTypeOf(decoder.decode(bytes.subarray(at, next - 1))), 1);
      if (++rows % ROWS_A_TURN === 0) await setImmediate();
    }
  }
  return types;
}
