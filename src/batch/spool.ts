/**
 * Rows on disk. A batch's rows are appended to one file, its segment, and synced in groups: requests
 * that come while a sync runs share the next one, so the price of a sync is split among all who wait.
 *
 * A segment is a batch: its name is the deduplication token, its content the rows of the INSERT;
 * stored = deleted. After a crash the same file is sent again under the same token. There is no log
 * to compact and no offset to lose. `segment.ts` knows the format.
 */

import { basename, join } from "node:path";
import type { OpenFile } from "./files.ts";
import type { HeldBatch, Place } from "./held.ts";
import { codeOf, reasonOf, spoolFolder, tableFolder } from "./layout.ts";
import type * as layout from "./layout.ts";
import { moveToQuarantine } from "./quarantine.ts";
import { loadSegment } from "./recovery.ts";
import { sealLine, segmentName } from "./segment.ts";

/** One batch's file. */
export interface Segment {
  readonly path: string;
  /** Of the file. */
  bytes: number;
  /** Null once nothing more is appended. */
  file: OpenFile | null;
  /** Damaged parts of it are nowhere else: it goes to quarantine, where another one is removed. */
  readonly keep: boolean;
}

/** The places of one batch that one sync makes safe. */
export interface Group {
  readonly batch: HeldBatch;
  readonly places: Place[];
  /** Resolves after `onSynced` was called, with what it was told. */
  readonly synced: Promise<string | null>;
}

export interface SpoolDeps {
  readonly place: layout.Place;
  /** A group's fate: null = its rows are on disk, else why they are not. */
  readonly onSynced: (group: Group, problem: string | null) => void;
}

/** Rows are joined with their seal line, so that a group is one write. */
interface Pending extends Group {
  readonly tell: (problem: string | null) => void;
}

const PROBE_BYTES = 64 * 1024;

export class Spool {
  /** Of all segments. */
  bytes = 0;
  /** Why the disk would not take the last group, for people; null while it does. */
  trouble: string | null = null;
  #next = new Map<HeldBatch, Pending>();
  #running = false;
  /** Folders that are known to be there. */
  readonly #folders = new Set<string>();

  constructor(readonly deps: SpoolDeps) {}

  /** A segment of an earlier process counts from now on. */
  adopt({ segment }: HeldBatch): void {
    this.bytes += segment?.bytes ?? 0;
  }

  /** Puts a place's rows into the next group of its batch. */
  submit(place: Place): Promise<string | null> {
    let group = this.#next.get(place.batch);
    if (group === undefined) {
      let tell: Pending["tell"] = () => {};
      const synced = new Promise<string | null>((resolve) => tell = resolve);
      group = { batch: place.batch, places: [], synced, tell };
      this.#next.set(place.batch, group);
    }
    group.places.push(place);
    if (!this.#running) void this.#run();
    return group.synced;
  }

  async #run(): Promise<void> {
    this.#running = true;
    // What is submitted in the same turn of the event loop shares the first sync.
    await Promise.resolve();
    while (this.#next.size > 0) {
      const groups = [...this.#next.values()];
      this.#next = new Map();
      await Promise.all(groups.map((group) => this.#commit(group)));
    }
    this.#running = false;
  }

  async #commit(group: Pending): Promise<void> {
    const { batch, places } = group;
    const problem = await this.#write(batch, places.map(({ chunk }) => chunk.body));
    this.#note(problem);
    this.deps.onSynced(group, problem);
    if (batch.sealed || problem !== null) await this.#finish(batch);
    group.tell(problem);
  }

  /**
   * While the disk is in trouble: finds out whether it still is, with a file as large as a block, so
   * that it recovers by itself although nobody writes to a collector that says it is not ready.
   */
  async probe(): Promise<void> {
    if (this.trouble === null) return;
    const { files, dataDir } = this.deps.place;
    const path = join(dataDir, "probe");
    try {
      await files.makeFolder(spoolFolder(dataDir));
      const file = await files.append(path);
      try {
        await file.write(new Uint8Array(PROBE_BYTES));
        await file.sync();
      } finally {
        await file.close();
        await files.remove(path);
      }
      this.#note(null);
    } catch (error) {
      this.#note(reasonOf(error));
    }
  }

  /** Writes a whole batch that is in memory only. @returns null, or why it could not. */
  async spill(batch: HeldBatch): Promise<string | null> {
    const problem = await this.#write(batch, batch.body);
    this.#note(problem);
    await this.#finish(batch);
    if (problem !== null) await this.remove(batch);
    return problem;
  }

  /** Appends a group and syncs it. Afterwards the segment ends in a whole group, or is finished. */
  async #write(batch: HeldBatch, rows: readonly Uint8Array[]): Promise<string | null> {
    const { files } = this.deps.place;
    const data = withSeal(rows);
    try {
      const fresh = batch.segment === null;
      const segment = batch.segment ??= await this.#create(batch);
      if (segment.file === null) throw new Error("the segment is finished");
      await segment.file.write(data);
      await segment.file.sync();
      if (fresh) await files.syncFolder(this.#folderOf(batch));
      segment.bytes += data.length;
      this.bytes += data.length;
      return null;
    } catch (error) {
      await this.#undo(batch);
      return reasonOf(error);
    }
  }

  async #create(batch: HeldBatch): Promise<Segment> {
    const { files, dataDir } = this.deps.place;
    const folder = this.#folderOf(batch);
    const path = join(folder, segmentName(batch));
    if (!this.#folders.has(folder)) {
      await files.makeFolder(folder);
      await files.syncFolder(spoolFolder(dataDir));
      this.#folders.add(folder);
    }
    try {
      return { path, bytes: 0, file: await files.create(path), keep: false };
    } catch (error) {
      // The folder may have been removed under us: it is made again next time.
      this.#folders.delete(folder);
      throw error;
    }
  }

  /** After a failed write the file is cut back; what cannot be cut back fails its checksum. */
  async #undo({ segment }: HeldBatch): Promise<void> {
    try {
      await segment?.file?.truncate(segment.bytes);
    } catch {
      // Recovery tells a torn group by its checksum.
    }
  }

  async #finish({ segment }: HeldBatch): Promise<void> {
    const file = segment?.file;
    if (!segment || !file) return;
    segment.file = null;
    try {
      await file.close();
    } catch (error) {
      this.deps.place.log.warn("segment could not be closed", { error: reasonOf(error) });
    }
  }

  /** The batch's rows; null, and a word in the log, where the disk does not give them back whole. */
  async load(batch: HeldBatch): Promise<Uint8Array[] | null> {
    const path = batch.segment?.path ?? "";
    try {
      const body = await loadSegment(this.deps.place.files, path);
      const bytes = body?.reduce((sum, piece) => sum + piece.length, 0);
      if (bytes === batch.bytes) return body;
      this.deps.place.log.error("segment does not hold what was written", {
        path,
        wanted_bytes: batch.bytes,
        found_bytes: bytes ?? 0,
      });
    } catch (error) {
      this.deps.place.log.error("segment cannot be read", { path, error: reasonOf(error) });
    }
    return null;
  }

  /** Stored, so deleted. A file that stays is sent again after a restart, under the same token. */
  async remove(batch: HeldBatch): Promise<void> {
    const { segment } = batch;
    if (segment === null) return;
    await this.#finish(batch);
    this.bytes -= segment.bytes;
    batch.segment = null;
    try {
      if (segment.keep) {
        const name = `${batch.table}.${basename(segment.path)}`;
        await moveToQuarantine(this.deps.place, segment.path, name);
      } else await this.deps.place.files.remove(segment.path);
    } catch (error) {
      if (codeOf(error) === "ENOENT") return;
      this.deps.place.log.warn("segment could not be removed", {
        path: segment.path,
        error: reasonOf(error),
      });
    }
  }

  #folderOf(batch: HeldBatch): string {
    return tableFolder(this.deps.place.dataDir, batch.table);
  }

  #note(problem: string | null): void {
    if (problem !== null && this.trouble === null) {
      this.deps.place.log.error("the disk does not take rows", { error: problem });
    }
    if (problem === null && this.trouble !== null) {
      this.deps.place.log.info("the disk takes rows again");
    }
    this.trouble = problem;
  }
}

function withSeal(rows: readonly Uint8Array[]): Uint8Array {
  const total = rows.reduce((sum, part) => sum + part.length, 0);
  const seal = sealLine(new Uint8Array(0)).length;
  const data = new Uint8Array(total + seal);
  let at = 0;
  for (const part of rows) {
    data.set(part, at);
    at += part.length;
  }
  data.set(sealLine(data.subarray(0, total)), total);
  return data;
}
