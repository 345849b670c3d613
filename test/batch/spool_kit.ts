/** A spool, or a pump with one, on a disk that does what a test says. */

import { type Disk, openDisk } from "../../src/spool/open.ts";
import type { Files } from "../../src/contracts.ts";
import { HeldBatch } from "../../src/batch/batch.ts";
import { type DataDir, openSpool } from "../../src/spool/data_dir.ts";
import { Pump, type PumpOptions } from "../../src/batch/pump.ts";
import { readFrames } from "../../src/spool/frame.ts";
import { readSegment } from "../../src/spool/segment.ts";
import { JournalSpool, type SpoolDeps } from "../../src/spool/spool.ts";
import { uuid7 } from "../../src/kernel/names.ts";
import type { Chunk, Memo, Spool } from "../../src/contracts.ts";
import { createLedger, type MeteredLedger } from "../../src/meter/ledger.ts";
import { memoryLog } from "../kit/chunks.ts";
import { FaultyFiles } from "../kit/faulty_files.ts";
import { ManualClock } from "../kit/manual_clock.ts";
import { writerOf } from "../dead/kit.ts";
import { ScriptedSink } from "../kit/scripted_sink.ts";
import { GatedFiles } from "../model/gated_files.ts";

export const DATA = "/data";

/** A batch that nobody seals. */
export function openBatch(chunk: Chunk): HeldBatch {
  return new HeldBatch(uuid7(Date.UTC(2024, 0, 1)), chunk, 0);
}

export interface SpoolKit {
  readonly files: FaultyFiles;
  readonly gate: GatedFiles;
  readonly spool: Spool;
  readonly log: ReturnType<typeof memoryLog>;
  /** See `submit`. */
  submit(batch: HeldBatch, chunk: Chunk): Promise<string | null>;
}

/** Folders are made already; what an operation is counted for is the spool's. */
export async function spoolKit(
  files = new FaultyFiles(),
  options: Partial<SpoolDeps> = {},
): Promise<SpoolKit> {
  const gate = new GatedFiles(files);
  const log = memoryLog();
  const dir = { files: gate as Files, dataDir: DATA, log };
  await openSpool(dir);
  files.trace.length = 0;
  const spool = spoolIn(dir, options);
  return { files, gate, spool, log, submit: (batch, chunk) => submit(spool, batch, chunk) };
}

/** A spool that nothing was left in. */
export function spoolIn(dir: DataDir, options: Partial<SpoolDeps> = {}): Spool {
  return new JournalSpool({ dir, clock: new ManualClock(), async *earlier() {}, ...options });
}

/** Appends a chunk to a batch and to the disk. @returns why the disk did not take it, or null. */
export async function submit(spool: Spool, batch: HeldBatch, chunk: Chunk): Promise<string | null> {
  const reservation = batch.reserve(chunk, 0);
  const { key, messages, table, rows: accepted } = chunk;
  const known = { table, sinceMs: 0, batches: [batch.id], gone: false };
  const memos: Memo[] = key === undefined ? [] : [{ ...key, ...known, accepted }];
  if (messages !== undefined) {
    const { source, marks, ids } = messages;
    memos.push(...marks.map((mark) => ({ ...mark, ...known, source })));
    if (ids.length > 0) {
      memos.push({ ...known, source, ids: JSON.stringify(ids), count: ids.length });
    }
  }
  const result = await spool.append(
    batch,
    reservation.body,
    accepted,
    memos.length === 0 ? undefined : memos,
  );
  if (result.ok) batch.commit(reservation);
  else batch.release(reservation);
  return result.ok ? null : result.problem;
}

/** Writes a batch of these rows whole, of which the disk has nothing. */
export async function spill(spool: Spool, batch: HeldBatch, chunk: Chunk): Promise<void> {
  batch.commit(batch.reserve(chunk, 0));
  batch.close();
  const written = await spool.write(batch);
  if (written?.ok === false) throw new Error(written.problem);
}

/** The rows of each group that a file holds and that its seals vouch for. */
export function groupsIn(files: FaultyFiles, path: string): string[] {
  const bytes = files.get(path)!;
  return readSegment(bytes).good.map(({ start, end }) =>
    new TextDecoder().decode(bytes.subarray(start, end))
  );
}

/** The rows of each live frame of the journal, in the order in which they were written. */
export function framesIn(files: FaultyFiles): string[] {
  return journalFiles(files).flatMap((path) => {
    const bytes = files.get(path)!;
    return readFrames(bytes, parseInt(path.split("/").at(-1)!, 10)).live.flatMap((live) =>
      "body" in live
        ? [new TextDecoder().decode(bytes.subarray(live.body.start, live.body.end))]
        : []
    );
  });
}

export function journalFiles(files: FaultyFiles): string[] {
  return files.paths().filter((path) => path.startsWith(`${DATA}/journal/`));
}

export function segments(files: FaultyFiles): string[] {
  return files.paths().filter((path) => path.startsWith(`${DATA}/spool/`));
}

export interface PumpKit {
  readonly files: FaultyFiles;
  readonly gate: GatedFiles;
  readonly clock: ManualClock;
  readonly sink: ScriptedSink;
  readonly ledger: MeteredLedger;
  readonly log: ReturnType<typeof memoryLog>;
  readonly disk: Disk;
  readonly pump: Pump;
}

/** Options that are not given ask for so much that they play no part. */
export async function pumpKit(
  options: {
    readonly files?: FaultyFiles;
    readonly ack?: PumpOptions["reached"];
    readonly maxRows?: number;
    readonly backlog?: number;
    readonly backlogBytes?: number;
    readonly maxSpoolBytes?: number;
    readonly tableShare?: number;
    readonly flushIntervalMs?: number;
    readonly concurrency?: number;
    readonly keyWindowMs?: number;
    readonly clock?: ManualClock;
    readonly journalFileBytes?: number;
    /** Of a collector that this one follows. */
    readonly vacated?: Promise<void>;
  } = {},
): Promise<PumpKit> {
  const files = options.files ?? new FaultyFiles();
  const gate = new GatedFiles(files);
  const clock = options.clock ?? new ManualClock();
  const sink = new ScriptedSink();
  const ledger = createLedger();
  const log = memoryLog();
  const opened = await openDisk({
    dir: { files: gate, dataDir: DATA, log },
    clock,
    memoryBytes: () => options.backlogBytes ?? 1e8,
    journalFileBytes: options.journalFileBytes,
    onLost() {},
    ...(options.vacated === undefined ? {} : { vacated: options.vacated }),
    lock: () => Promise.resolve({ release: () => Promise.resolve() }),
  });
  if (!opened.ok) throw new Error(opened.problem);
  const disk = opened.value;
  const letters = writerOf({ dataDir: DATA, files: gate });
  const { maxRows = 1000, flushIntervalMs = 1000, concurrency = 4 } = options;
  const { backlog = 1e6, backlogBytes = 1e8, maxSpoolBytes = 1e9 } = options;
  const pump = new Pump({
    fill: { maxRows, maxBytes: 1e6, flushIntervalMs, idleIntervalMs: null },
    budget: { maxRows: backlog, maxBytes: backlogBytes, tableShare: options.tableShare ?? 1 },
    concurrency,
    reached: options.ack ?? "disk",
    maxSpoolBytes,
    keyWindowMs: options.keyWindowMs ?? 3_600_000,
  }, {
    sink,
    ledger,
    clock,
    log,
    spool: disk.spool,
    deadLetters: letters,
  });
  return { files, gate, clock, sink, ledger, log, disk, pump };
}
