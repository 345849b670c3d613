/**
 * Rows on disk. A batch's rows are appended to one file, its segment, and synced in groups: requests
 * that come while a sync runs share the next one, so the price of a sync is split among all who wait.
 *
 * A segment is a batch: its name is the deduplication token, its content the rows of the INSERT;
 * stored = deleted. After a crash the same file is sent again under the same token. There is no log
 * to compact and no offset to lose. `segment.ts` knows the format.
 */

import { dirname, join } from "node:path";
import type { Refused } from "../contracts.ts";
import { Disposal } from "./disposal.ts";
import { findGone } from "./gone.ts";
import { bytesOf, type HeldBatch, type Place, type Segment } from "../batch/held.ts";
import { codeOf, reasonOf, reasonWithoutPath } from "../kernel/errors.ts";
import { makeTableFolder } from "./layout.ts";
import type * as layout from "./layout.ts";
import { probeDisk } from "./probe.ts";
import { loadSegment } from "./recovery.ts";
import { sealed, segmentName } from "./segment.ts";
import { allEnded, Underway } from "../kernel/time.ts";

/** The places of one batch that one sync makes safe. */
export interface Group {
  readonly batch: HeldBatch;
  readonly places: Place[];
  /** Resolves with what `onSynced` said; one promise serves all who wait. */
  readonly synced: Promise<Refused | null>;
}

export interface SpoolDeps {
  readonly place: layout.Place;
  /** A group's fate: null = its rows are on disk, else why they are not; returns what is told of it. */
  readonly onSynced: (group: Group, problem: string | null) => Refused | null;
}

/** What is written at once. */
const ROOM_BYTES = 256 * 1024;

interface Pending extends Group {
  readonly tell: (refused: Refused | null) => void;
}

export class Spool {
  /** Of all segments. */
  bytes = 0;
  /** Why the disk would not take the last group, for people; null while it does. */
  trouble: string | null = null;
  /** Somebody has removed a file of ours; others may be gone as well. */
  filesGone = false;
  #next = new Map<HeldBatch, Pending>();
  #running = false;
  #room: Uint8Array | null = null;
  #probing: Promise<void> | null = null;
  /** Rounds and spills under way. */
  readonly #writing = new Underway();
  /** Tables' folders that are known to be there. */
  readonly #folders = new Map<string, string>();
  /** Batches whose file is open; one that is spilled closes its own. */
  readonly #open = new Set<HeldBatch>();
  readonly #disposal: Disposal;

  constructor(readonly deps: SpoolDeps) {
    this.#disposal = new Disposal(deps.place, (bytes) => this.bytes -= bytes);
  }

  /** A segment of an earlier process counts from now on. */
  adopt({ segment }: HeldBatch): void {
    this.bytes += segment?.bytes ?? 0;
  }

  /** Puts a place's rows into the next group of its batch. */
  submit(place: Place): Promise<Refused | null> {
    let group = this.#next.get(place.batch);
    if (group === undefined) {
      let tell: Pending["tell"] = () => {};
      const synced = new Promise<Refused | null>((resolve) => tell = resolve);
      group = { batch: place.batch, places: [], synced, tell };
      this.#next.set(place.batch, group);
    }
    group.places.push(place);
    if (!this.#running) void this.#writing.add(this.#run());
    return group.synced;
  }

  async #run(): Promise<void> {
    this.#running = true;
    // What is submitted in the same turn of the event loop shares the first sync. To wait longer for
    // company saves CPU (a group costs 0.5 ms, most of it the kernel's journal) but no time: with 1, 2
    // and 4 ms between groups there were no more requests a second.
    await Promise.resolve();
    while (this.#next.size > 0) {
      const groups = [...this.#next.values()];
      this.#next = new Map();
      await Promise.all(groups.map((group) => this.#commit(group)));
      await this.#finishSealed();
    }
    this.#running = false;
  }

  async #commit(group: Pending): Promise<void> {
    const { batch, places } = group;
    // What was refused leaves a hole in the batch's memory that no rows may follow.
    batch.diskProblem ??= await this.#write(batch, places.map(bytesOf));
    const problem = batch.diskProblem;
    group.tell(this.deps.onSynced(group, problem));
    if (batch.sealed || problem !== null) await this.#finish(batch);
  }

  /**
   * While the disk is in trouble: finds out whether it still is, so that it recovers by itself although
   * nobody writes to a collector that says it is not ready.
   */
  async probe(): Promise<void> {
    // One that hangs is not joined by others.
    this.#probing ??= this.#writing.add(this.#probe());
    await this.#probing;
    this.#probing = null;
  }

  async #probe(): Promise<void> {
    await this.#disposal.retry();
    if (this.trouble === null && !this.filesGone) return;
    this.#folders.clear();
    this.#note(await probeDisk(this.deps.place));
  }

  /**
   * Writes a whole batch that is in memory only; one that is settled meanwhile is removed again.
   * @returns null, or why it could not.
   */
  spill(batch: HeldBatch): Promise<string | null> {
    return this.#writing.add(this.#spill(batch));
  }

  async #spill(batch: HeldBatch): Promise<string | null> {
    batch.spilling = true;
    const problem = await this.#write(batch, batch.body);
    await this.#finish(batch);
    batch.spilling = false;
    if (problem !== null || batch.settled) await this.remove(batch);
    return problem;
  }

  /** Appends a group and syncs it. Afterwards the segment ends in a whole group, or is finished. */
  async #write(batch: HeldBatch, rows: readonly Uint8Array[]): Promise<string | null> {
    const { files } = this.deps.place;
    const room = this.#room ?? new Uint8Array(ROOM_BYTES);
    this.#room = null;
    try {
      const fresh = batch.segment === null;
      const segment = batch.segment ??= await this.#create(batch);
      if (segment.file === null) throw new Error("the segment is finished");
      let bytes = 0;
      for (const piece of sealed(rows, room)) {
        await segment.file.write(piece);
        bytes += piece.length;
      }
      // Both at once: the first row of a batch waits for the slower of two syncs, not for their sum.
      const synced = segment.file.sync();
      await (fresh ? allEnded([synced, files.syncFolder(dirname(segment.path))]) : synced);
      segment.bytes += bytes;
      this.bytes += bytes;
      this.#note(null);
      return null;
    } catch (error) {
      this.filesGone ||= codeOf(error) === "ENOENT";
      await this.#undo(batch);
      // Only a replay can meet its own file, which is being recovered: no trouble of the disk.
      if (codeOf(error) !== "EEXIST") this.#note(reasonWithoutPath(error));
      return reasonWithoutPath(error);
    } finally {
      this.#room = room;
    }
  }

  async #create(batch: HeldBatch): Promise<Segment> {
    const { place } = this.deps;
    const { table } = batch;
    const folder = this.#folders.get(table) ?? await makeTableFolder(place, table);
    this.#folders.set(table, folder);
    const path = join(folder, segmentName(batch));
    try {
      const file = await place.files.create(path);
      if (!batch.spilling) this.#open.add(batch);
      return { path, bytes: 0, file, keep: false };
    } catch (error) {
      // The folder may have been removed under us: it is made again next time.
      this.#folders.delete(table);
      throw error;
    }
  }

  /**
   * After a failed write the file is cut back, or rows that were refused could come back after a power
   * cut. What cannot be cut back fails its checksum, unless it was whole: a refused row may be stored.
   */
  async #undo({ segment }: HeldBatch): Promise<void> {
    try {
      await segment?.file?.truncate(segment.bytes);
      await segment?.file?.sync();
    } catch {
      // The disk is in trouble already.
    }
  }

  /** Batches are also sealed without a write: because they are due, or by rows of another kind. */
  async #finishSealed(): Promise<void> {
    await Promise.all([...this.#open].filter(({ sealed }) => sealed).map((b) => this.#finish(b)));
  }

  async #finish(batch: HeldBatch): Promise<void> {
    this.#open.delete(batch);
    const { segment } = batch;
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
    let error = "its rows do not agree with their checksums";
    const groups = await loadSegment(this.deps.place.files, path).catch((problem) => {
      this.filesGone ||= codeOf(problem) === "ENOENT";
      error = reasonOf(problem);
      return [];
    });
    const body: Uint8Array[] = [];
    let bytes = 0;
    // What stands behind them was refused and could not be cut back.
    for (const group of groups) {
      if (bytes >= batch.bytes) break;
      body.push(group);
      bytes += group.length;
    }
    if (bytes === batch.bytes) return body;
    this.deps.place.log.error("segment does not hold what was written", {
      file: path,
      wanted_bytes: batch.bytes,
      found_bytes: bytes,
      error,
    });
    return null;
  }

  /** Stored, so deleted. A file that stays is sent again after a restart, under the same token. */
  async remove(batch: HeldBatch): Promise<void> {
    const { segment, table } = batch;
    if (segment === null) return;
    const closed = this.#finish(batch);
    batch.segment = null;
    await this.#disposal.discard({ ...segment, table }, closed);
  }

  /** Resolves when nothing is being written and no file is open. */
  async close(): Promise<void> {
    await this.#writing.idle();
    await Promise.all([...this.#open].map((batch) => this.#finish(batch)));
    await this.#disposal.idle();
    await this.#disposal.retry();
  }

  /** Those of some sealed batches whose files are certainly gone. */
  findGone(batches: readonly HeldBatch[]): Promise<HeldBatch[]> {
    return findGone(this.deps.place.files, batches);
  }

  /** The batch's file is gone: from here on it is not on disk. */
  forsake(batch: HeldBatch): void {
    const { id, table, rows, segment } = batch;
    void this.#finish(batch);
    this.bytes -= segment?.bytes ?? 0;
    batch.segment = null;
    if (batch.inMemory) return;
    const lost = { table, batch: id, rows, file: segment?.path };
    this.deps.place.log.error("rows are lost: somebody has removed their file", lost);
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
