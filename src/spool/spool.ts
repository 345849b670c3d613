/**
 * Rows on disk: the room's door. A batch's rows are appended to one file, its segment, and synced in
 * groups: requests that come while a sync runs share the next one, so they split the
 * price of a sync.
 *
 * A segment is a batch: its name is the deduplication token, its content the rows of the INSERT;
 * stored = deleted. After a crash the same file is sent again under the same token. There is no log
 * to compact and no offset to lose. `segment.ts` knows the format.
 */

import { basename, dirname, join } from "node:path";
import type {
  Batch,
  BatchHead,
  Clock,
  GrowingBatch,
  Log,
  OpenFile,
  RecoveredBatch,
  Spool,
  Vanished,
} from "../contracts.ts";
import { codeOf, reasonOf, reasonWithoutPath } from "../kernel/errors.ts";
import { DONE, done, failed, type Result } from "../kernel/result.ts";
import { allEnded, Underway } from "../kernel/time.ts";
import { type DataDir, makeTableFolder, moveToQuarantine, probeDisk } from "./data_dir.ts";
import { loadSegment, type Quarantined, type RecoveredSegment } from "./recovery.ts";
import { SEAL_BYTES, sealed, segmentName } from "./segment.ts";

export interface SpoolDeps {
  readonly dir: DataDir;
  readonly clock: Pick<Clock, "nowMs">;
  /** Reads what earlier processes left. */
  readonly earlier: () => AsyncIterable<RecoveredSegment | Quarantined>;
}

/** What is written at once. */
const ROOM_BYTES = 256 * 1024;

/** One batch's file. */
interface Segment {
  readonly table: string;
  readonly path: string;
  /** Of the file; 0 while nothing of it is safe. */
  bytes: number;
  /** Null once nothing more is written to it. */
  file: OpenFile | null;
  /** Damaged parts of it are nowhere else: it goes to quarantine, where another one is removed. */
  readonly keep: boolean;
  /** Its file has been removed, though not by us; `bytes` is 0 from then on. */
  vanished: boolean;
}

/** A batch that rows are appended to, as far as the disk has got with it. */
interface Growth {
  /** Null before the first group, and where its file could not be made. */
  segment: Segment | null;
  /** Why the disk did not take a group; what was refused leaves a hole that no rows may follow. */
  problem: string | null;
}

/** Rows of one batch that one sync makes safe. */
interface Group {
  readonly batch: GrowingBatch;
  readonly bodies: Uint8Array[];
  readonly synced: Promise<Result>;
  readonly answer: (result: Result) => void;
}

export class SegmentSpool implements Spool {
  #bytes = 0;
  /** Why the disk would not take the last group; null while it does. */
  #trouble: string | null = null;
  /** A file that should be there is not; others may be gone as well. */
  #filesGone = false;
  #next = new Map<GrowingBatch, Group>();
  #running = false;
  #room: Uint8Array | null = null;
  #probing: Promise<readonly Vanished[]> | null = null;
  /** Rounds, writes, looks and recoveries under way. */
  readonly #underway = new Underway();
  /** Tables' folders that are known to be there. */
  readonly #folders = new Map<string, string>();
  /** Batches that may still grow. */
  readonly #growing = new Map<GrowingBatch, Growth>();
  /** Of every batch that has one. */
  readonly #segments = new Map<string, Segment>();
  /** Batches that are being written whole. */
  readonly #writing = new Map<string, { unwanted: boolean }>();
  /** What the disk would not let go. */
  #leftovers: Segment[] = [];
  readonly #dir: DataDir;

  constructor(readonly deps: SpoolDeps) {
    this.#dir = deps.dir;
  }

  bytes(): number {
    return this.#bytes;
  }

  trouble(): string | null {
    return this.#trouble;
  }

  // ------------------------------------------------------------ group commit

  append(batch: GrowingBatch, body: Uint8Array): Promise<Result> {
    let group = this.#next.get(batch);
    if (group === undefined) {
      const { promise, resolve } = Promise.withResolvers<Result>();
      group = { batch, bodies: [], synced: promise, answer: resolve };
      this.#next.set(batch, group);
    }
    group.bodies.push(body);
    if (!this.#running) void this.#underway.add(this.#run());
    return group.synced;
  }

  async #run(): Promise<void> {
    this.#running = true;
    // What is appended in the same turn of the event loop shares the first sync. To wait longer for
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

  async #commit(group: Group): Promise<void> {
    const { batch, bodies } = group;
    let growth = this.#growing.get(batch);
    if (growth === undefined) {
      growth = { segment: null, problem: null };
      this.#growing.set(batch, growth);
    }
    growth.problem ??= await this.#grow(batch, growth, bodies);
    group.answer(growth.problem === null ? DONE : failed(growth.problem));
    // What waits for the answer runs before this goes on, and may seal the batch.
    await group.synced;
    if (growth.problem !== null) await this.#finish(growth.segment);
    else if (batch.sealed) await this.#finishGrowth(batch, growth);
  }

  /** @returns why not, or null. */
  async #grow(
    batch: BatchHead,
    growth: Growth,
    bodies: readonly Uint8Array[],
  ): Promise<string | null> {
    const fresh = growth.segment === null;
    try {
      const segment = growth.segment ??= await this.#create(batch);
      await this.#write(segment, bodies, fresh);
      return null;
    } catch (error) {
      await this.#undo(growth.segment);
      if (growth.segment?.bytes === 0) void this.#forget(batch.id, growth.segment);
      this.#fail(error);
      return reasonWithoutPath(error);
    }
  }

  /** Appends rows and syncs them. Rejects with the disk's error. */
  async #write(segment: Segment, bodies: readonly Uint8Array[], fresh: boolean): Promise<void> {
    const { files } = this.#dir;
    const { file } = segment;
    const room = this.#room ?? new Uint8Array(ROOM_BYTES);
    this.#room = null;
    try {
      if (file === null) throw new Error("the segment is finished");
      let bytes = 0;
      for (const piece of sealed(bodies, room)) {
        await file.write(piece);
        bytes += piece.length;
      }
      // Both at once: the first row of a batch waits for the slower of two syncs, not for their sum.
      const synced = file.sync();
      await (fresh ? allEnded([synced, files.syncFolder(dirname(segment.path))]) : synced);
      segment.bytes += bytes;
      this.#bytes += bytes;
      this.#note(null);
    } finally {
      this.#room = room;
    }
  }

  async #create(batch: BatchHead): Promise<Segment> {
    const { table } = batch;
    const folder = this.#folders.get(table) ?? await makeTableFolder(this.#dir, table);
    this.#folders.set(table, folder);
    const path = join(folder, segmentName(batch));
    try {
      const file = await this.#dir.files.create(path);
      const segment = { ...segmentAt(table, path), file };
      this.#segments.set(batch.id, segment);
      return segment;
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
  async #undo(segment: Segment | null): Promise<void> {
    try {
      await segment?.file?.truncate(segment.bytes);
      await segment?.file?.sync();
    } catch {
      // The disk is in trouble already.
    }
  }

  #fail(error: unknown): void {
    this.#filesGone ||= codeOf(error) === "ENOENT";
    // Only a replay can meet its own file, which is being recovered: no trouble of the disk.
    if (codeOf(error) !== "EEXIST") this.#note(reasonWithoutPath(error));
  }

  /** Batches are also sealed without a write: because they are due, or by rows of another kind. */
  async #finishSealed(): Promise<void> {
    await Promise.all(
      [...this.#growing].filter(([{ sealed }]) => sealed)
        .map(([batch, growth]) => this.#finishGrowth(batch, growth)),
    );
  }

  async #finishGrowth(batch: GrowingBatch, { segment }: Growth): Promise<void> {
    this.#growing.delete(batch);
    await this.#finish(segment);
  }

  async #finish(segment: Segment | null): Promise<void> {
    if (segment === null || segment.file === null) return;
    const { file } = segment;
    segment.file = null;
    try {
      await file.close();
    } catch (error) {
      this.#dir.log.warn("segment could not be closed", { error: reasonOf(error) });
    }
  }

  // ------------------------------------------------------------ sealed batches

  write(batch: Batch): Promise<Result> | null {
    const known = this.#segments.get(batch.id);
    if (known !== undefined && known.bytes > 0 && !known.vanished) return null;
    return this.#underway.add(this.#writeWhole(batch));
  }

  async #writeWhole(batch: Batch): Promise<Result> {
    const writing = { unwanted: false };
    this.#writing.set(batch.id, writing);
    let segment: Segment | null = null;
    let result: Result = DONE;
    try {
      segment = await this.#create(batch);
      await this.#write(segment, batch.body, true);
    } catch (error) {
      await this.#undo(segment);
      this.#fail(error);
      result = failed(reasonWithoutPath(error));
    }
    await this.#finish(segment);
    this.#writing.delete(batch.id);
    // Waited for: the same name may be wanted again at once.
    if (segment !== null && (!result.ok || writing.unwanted)) await this.#forget(batch.id, segment);
    return result;
  }

  async read({ id, bytes }: Pick<Batch, "id" | "bytes">): Promise<Result<Uint8Array[]>> {
    const path = this.#segments.get(id)?.path ?? "";
    let problem = "its rows do not agree with their checksums";
    const groups = await loadSegment(this.#dir.files, path).catch((error) => {
      this.#filesGone ||= codeOf(error) === "ENOENT";
      problem = reasonOf(error);
      return [];
    });
    const body: Uint8Array[] = [];
    let found = 0;
    // What stands behind them was refused and could not be cut back.
    for (const group of groups) {
      if (found >= bytes) break;
      body.push(group);
      found += group.length;
    }
    if (found === bytes) return done(body);
    this.#dir.log.error("segment does not hold what was written", {
      file: path,
      wanted_bytes: bytes,
      found_bytes: found,
      error: problem,
    });
    return failed(`segment of batch ${id} cannot be read`);
  }

  /** A file that stays is sent again after a restart, under the same token. */
  remove(id: string): void {
    const writing = this.#writing.get(id);
    const segment = this.#segments.get(id);
    if (writing !== undefined) writing.unwanted = true;
    else if (segment !== undefined) void this.#forget(id, segment);
  }

  #forget(id: string, segment: Segment): Promise<void> {
    if (this.#segments.get(id) === segment) this.#segments.delete(id);
    return this.#underway.add(this.#finish(segment).then(() => this.#discard(segment)));
  }

  async #discard(segment: Segment): Promise<void> {
    if (!await this.#unlink(segment, "warn")) this.#leftovers.push(segment);
    else if (this.#leftovers.length > 0) await this.#removeLeftovers();
  }

  /**
   * Tries again what could not be removed: what still lies there at the next start is sent a second
   * time, and where ClickHouse has forgotten its token by then it is stored a second time.
   */
  async #removeLeftovers(): Promise<void> {
    const segments = this.#leftovers;
    this.#leftovers = [];
    while (segments.length > 0 && await this.#unlink(segments[0]!, "debug")) segments.shift();
    this.#leftovers.push(...segments);
  }

  async #unlink(
    { table, path, bytes, keep, vanished }: Segment,
    level: keyof Log,
  ): Promise<boolean> {
    // What has its name now is another file.
    if (vanished) return true;
    try {
      if (keep) await moveToQuarantine(this.#dir, path, `${table}.${basename(path)}`);
      else await this.#dir.files.remove(path);
    } catch (error) {
      if (codeOf(error) !== "ENOENT") {
        const fields = { file: path, error: reasonOf(error) };
        this.#dir.log[level]("segment could not be removed", fields);
        return false;
      }
    }
    this.#bytes -= bytes;
    return true;
  }

  // ------------------------------------------------------------ trouble

  probe(): Promise<readonly Vanished[]> {
    // One that hangs is not joined by others.
    return this.#probing ??= this.#underway.add(this.#probe()).finally(() => this.#probing = null);
  }

  async #probe(): Promise<readonly Vanished[]> {
    await this.#removeLeftovers();
    if (this.#trouble === null && !this.#filesGone) return [];
    this.#folders.clear();
    this.#note(await probeDisk(this.#dir));
    if (this.#trouble !== null || !this.#filesGone) return [];
    this.#filesGone = false;
    return await this.#findVanished();
  }

  /**
   * Files that are certainly gone: removed by hand, as nothing of ours removes a file while its rows are
   * held. A folder that cannot be read says nothing of what is in it; one that is not in the folder above
   * is gone with all it held.
   */
  async #findVanished(): Promise<readonly Vanished[]> {
    const segments = [...this.#segments].filter(([id, { bytes, vanished }]) =>
      (bytes > 0 || vanished) && !this.#writing.has(id)
    );
    const names = new Map<string, ReadonlySet<string> | null>();
    for (const folder of new Set(segments.map(([, { path }]) => dirname(path)))) {
      names.set(folder, await this.#namesIn(folder));
    }
    const vanished: Vanished[] = [];
    for (const [id, segment] of segments) {
      const { path } = segment;
      const gone = names.get(dirname(path))?.has(basename(path)) === false;
      // One that was written again meanwhile is not in a listing from before.
      if (!gone || this.#segments.get(id) !== segment) continue;
      segment.vanished = true;
      this.#bytes -= segment.bytes;
      segment.bytes = 0;
      vanished.push({ id, file: path });
    }
    return vanished;
  }

  /** Null where that is not known. */
  async #namesIn(folder: string): Promise<ReadonlySet<string> | null> {
    const { files } = this.#dir;
    const names = await files.list(folder).catch(() => null);
    if (names !== null) return new Set(names);
    const above = await files.list(dirname(folder)).catch(() => null);
    return above === null || above.includes(`${basename(folder)}/`) ? null : new Set();
  }

  #note(problem: string | null): void {
    const { log } = this.#dir;
    if (problem !== null && this.#trouble === null) {
      log.error("the disk does not take rows", { error: problem });
    }
    if (problem === null && this.#trouble !== null) log.info("the disk takes rows again");
    this.#trouble = problem;
  }

  // ------------------------------------------------------------ start and end

  async *recover(): AsyncGenerator<RecoveredBatch, void, undefined> {
    const { promise, resolve } = Promise.withResolvers<void>();
    void this.#underway.add(promise);
    const { log } = this.#dir;
    let [batches, rows, quarantined] = [0, 0, 0];
    try {
      for await (const found of this.deps.earlier()) {
        if (found.kind === "quarantined") {
          quarantined++;
          continue;
        }
        const { id, table, path, keep } = found;
        // The same name is the same batch: the next start finds this one.
        if (this.#segments.has(id)) {
          log.warn("a spool file waits: a batch of its id is held", { file: path });
          continue;
        }
        // About: quarantined parts of the file are not counted.
        const bytes = found.bytes + found.ranges.length * SEAL_BYTES;
        this.#segments.set(id, { ...segmentAt(table, path), bytes, keep });
        this.#bytes += bytes;
        batches++;
        rows += found.rows;
        yield { ...found, oldestMs: found.oldestMs ?? this.deps.clock.nowMs() };
      }
      if (batches + quarantined > 0) log.info("spool recovered", { batches, rows, quarantined });
    } finally {
      resolve();
    }
  }

  async close(): Promise<void> {
    await this.#underway.idle();
    await Promise.all([...this.#growing].map((each) => this.#finishGrowth(...each)));
    await this.#underway.idle();
    await this.#removeLeftovers();
  }
}

function segmentAt(table: string, path: string): Segment {
  return {
    table,
    path,
    bytes: 0,
    file: null,
    keep: false,
    vanished: false,
  };
}
