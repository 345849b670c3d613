/** One process of the model, from opening the disk to its end, and what lies on a disk. */

import { type Disk, openDisk } from "../../src/spool/open.ts";
import { readLetter } from "../../src/dead/letter.ts";
import type { LetterWriter } from "../../src/dead/writer.ts";
import { Pump } from "../../src/batch/pump.ts";
import { readSegment } from "../../src/spool/segment.ts";
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

/** Rows (their numbers) that recovery would find, and the bytes of the spool's files. */
export function inSpool(files: FaultyFiles): { rows: number[]; bytes: number; paths: string[] } {
  const rows: number[] = [];
  const paths = files.paths().filter((path) => path.startsWith(`${DATA}/spool/`));
  let bytes = 0;
  for (const path of paths) {
    const content = files.get(path)!;
    bytes += content.length;
    for (const { start, end } of readSegment(content).good) {
      rows.push(...numbersIn(new TextDecoder().decode(content.subarray(start, end))));
    }
  }
  return { rows, bytes, paths };
}

/** Rows that lie among the dead letters, one for each letter. */
export function deadOn(files: FaultyFiles): number[] {
  const dead: number[] = [];
  for (const path of files.paths()) {
    if (!path.startsWith(`${DATA}/dead/`)) continue;
    for (const line of new TextDecoder().decode(files.get(path)!).split("\n")) {
      const letter = readLetter(line);
      if (letter !== null) dead.push(...numbersIn(letter.row + "\n"));
    }
  }
  return dead;
}

function numbersIn(text: string): number[] {
  return text.split("\n").slice(0, -1).map((line) => (JSON.parse(line) as { n: number }).n);
}
