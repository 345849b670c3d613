/** One process of the model, from opening the disk to its end, and what lies on a disk. */

import { type Disk, openDisk } from "../../src/spool/open.ts";
import { readLetter } from "../../src/dead/letter.ts";
import type { LetterWriter } from "../../src/dead/writer.ts";
import { Pump } from "../../src/batch/pump.ts";
import { readFrames } from "../../src/spool/frame.ts";
import { parseSegmentName, readSegment } from "../../src/spool/segment.ts";
import { createLedger, type MeteredLedger } from "../../src/meter/ledger.ts";
import { memoryLog } from "../kit/chunks.ts";
import type { FaultyFiles } from "../kit/faulty_files.ts";
import { ManualClock } from "../kit/manual_clock.ts";
import { writerOf } from "../dead/kit.ts";
import type { Config } from "./disk_commands.ts";
import { GatedFiles } from "./gated_files.ts";
import { type Sent, type SimulatedClickHouse, SimulatedSink } from "./simulated_clickhouse.ts";

export const DATA = "/data";

export interface LifeOptions {
  readonly config: Config;
  readonly files: FaultyFiles;
  readonly clickhouse: SimulatedClickHouse;
  readonly startMs: number;
  readonly chance: number;
  /** The disk answers nothing while the spool is read, until it is let. */
  readonly slowStart: boolean;
  readonly onSent: (sent: Sent) => void;
  readonly onProblem: (problem: string) => void;
}

interface Parts {
  readonly gate: GatedFiles;
  readonly disk: Disk;
  readonly letters: LetterWriter;
  readonly pump: Pump;
  readonly clock: ManualClock;
  readonly sink: SimulatedSink;
  readonly ledger: MeteredLedger;
  readonly log: ReturnType<typeof memoryLog>;
}

export class Life {
  /** What lay in the spool is read. */
  recovered = false;
  abandoned = false;
  crashed = false;
  /** A fault was scripted, a full or read-only disk included. */
  faulty = false;
  /** Neither the disk nor ClickHouse has kept anybody waiting. */
  calm: boolean;
  /** Rows of chunks that were offered and not refused at once. */
  offered = 0;
  /** Rows that lay in the spool at the start. */
  readonly foundRows: number;
  readonly foundBytes: number;

  private constructor(
    readonly options: LifeOptions,
    readonly parts: Parts,
    found: { readonly rows: readonly number[]; readonly bytes: number },
  ) {
    this.foundRows = found.rows.length;
    this.foundBytes = found.bytes;
    this.calm = !options.slowStart;
    void parts.pump.recover().then(() => this.recovered = true);
    void options.files.crashed.then(() => this.crashed = true);
  }

  static async start(options: LifeOptions): Promise<Life> {
    const { config, files } = options;
    const gate = new GatedFiles(files);
    const clock = new ManualClock(options.chance, options.startMs);
    const sink = new SimulatedSink(options.clickhouse, options.onSent, options.onProblem);
    const found = inSpool(files);
    const ledger = createLedger();
    const log = memoryLog();
    const opened = await openDisk({
      dir: { files: gate, dataDir: DATA, log },
      clock,
      memoryBytes: () => config.backlogBytes,
      journalFileBytes: config.journalFileBytes,
      onLost: () => options.onProblem("the lock was lost"),
      lock: () => Promise.resolve({ release: () => Promise.resolve() }),
    });
    if (!opened.ok) throw new Error(opened.problem);
    const disk = opened.value;
    const letters = writerOf({ dataDir: DATA, files: gate, clock });
    const pump = new Pump({
      fill: config,
      budget: { maxRows: config.backlog, maxBytes: config.backlogBytes },
      concurrency: config.concurrency,
      reached: config.ack,
      maxSpoolBytes: config.maxSpoolBytes,
      // Longer than any run: no key is forgotten.
      keyWindowMs: 1e12,
    }, {
      sink,
      ledger,
      clock,
      log,
      spool: disk.spool,
      deadLetters: letters,
    });
    gate.shut = options.slowStart;
    return new Life(options, { gate, disk, letters, pump, clock, sink, ledger, log }, found);
  }
}

/** Rows (their numbers) that recovery would find, and what they take on disk. */
export function inSpool(files: FaultyFiles): { rows: number[]; bytes: number; paths: string[] } {
  const paths = files.paths().filter((path) => /^\/data\/(?:spool|journal)\//.test(path));
  const batches = inJournal(files);
  for (const path of paths) {
    const name = parseSegmentName(path.split("/").at(-1)!);
    if (!path.startsWith(`${DATA}/spool/`) || name === null) continue;
    const content = files.get(path)!;
    const rows = readSegment(content).good.flatMap(({ start, end }) =>
      numbersIn(content, start, end)
    );
    const journaled = batches.get(name.id)?.flatMap(({ rows }) => rows) ?? [];
    if (rows.length < journaled.length) continue;
    batches.set(name.id, [{ from: 0, rows, bytes: content.length }]);
  }
  const parts = [...batches.values()].flat();
  const bytes = parts.reduce((sum, { bytes }) => sum + bytes, 0);
  return { rows: parts.flatMap(({ rows }) => rows), bytes, paths };
}

interface PartInJournal {
  readonly from: number;
  readonly rows: readonly number[];
  readonly bytes: number;
}

/** By batch; of a part that was copied, the copy. */
function inJournal(files: FaultyFiles): Map<string, PartInJournal[]> {
  const batches = new Map<string, PartInJournal[]>();
  for (const path of files.paths()) {
    if (!path.startsWith(`${DATA}/journal/`)) continue;
    const content = files.get(path)!;
    for (const live of readFrames(content, parseInt(path.split("/").at(-1)!, 10)).live) {
      if ("settled" in live) { for (const id of live.settled) batches.delete(id); }
      else if ("body" in live) {
        const { from, frame, body } = live;
        const rows = numbersIn(content, body.start, body.end);
        const others = (batches.get(live.head.id) ?? []).filter((part) =>
          part.from < from || part.from >= from + rows.length
        );
        batches.set(live.head.id, [...others, { from, rows, bytes: frame.end - frame.start }]);
      }
    }
  }
  return batches;
}

/** Rows that lie among the dead letters, one for each letter. */
export function deadOn(files: FaultyFiles): number[] {
  const dead: number[] = [];
  for (const path of files.paths()) {
    if (!path.startsWith(`${DATA}/dead/`)) continue;
    for (const line of new TextDecoder().decode(files.get(path)!).split("\n")) {
      const letter = readLetter(line);
      if (letter !== null) dead.push(numberOf(letter.row));
    }
  }
  return dead;
}

function numbersIn(content: Uint8Array, start: number, end: number): number[] {
  const text = new TextDecoder().decode(content.subarray(start, end));
  return text.split("\n").slice(0, -1).map(numberOf);
}

function numberOf(line: string): number {
  return (JSON.parse(line) as { n: number }).n;
}
