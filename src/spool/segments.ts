/**
 * Segments on disk: batches that memory has let go, each whole in a file of its own, written without
 * hurry and removed when its rows have left. `segment.ts` knows what stands in them.
 */

import { basename, dirname, join } from "node:path";
import type { BatchHead, Files, Log, OpenFile } from "../contracts.ts";
import { codeOf, reasonOf } from "../kernel/errors.ts";
import { allEnded, Underway } from "../kernel/time.ts";
import { type DataDir, makeTableFolder, moveToQuarantine } from "./data_dir.ts";
import { sealed, segmentName } from "./segment.ts";

/** What is written at once. */
const ROOM_BYTES = 256 * 1024;

/** One batch's file. */
export interface Segment {
  readonly table: string;
  readonly path: string;
  readonly bytes: number;
  /** Damaged parts of it are nowhere else: it goes to quarantine, where another one is removed. */
  readonly keep: boolean;
}

export class Segments {
  /** Of all files, also of those that the disk does not let go. */
  bytes = 0;
  /** Tables' folders that are known to be there. */
  readonly #folders = new Map<string, string>();
  /** What the disk would not let go. */
  #leftovers: Segment[] = [];
  readonly #underway = new Underway();

  constructor(readonly dir: DataDir) {}

  /** A file that was found. */
  adopt(segment: Segment): void {
    this.bytes += segment.bytes;
  }

  /** A file without which all is known, and that the disk does not let go: it is tried again. */
  leave(table: string, path: string): void {
    this.#leftovers.push({ table, path, bytes: 0, keep: false });
  }

  /** A batch's rows, safe once this resolves. Rejects with the disk's error; then nothing is there. */
  async write(head: BatchHead, body: readonly Uint8Array[]): Promise<Segment> {
    const { files } = this.dir;
    const { table } = head;
    const { file, path } = await this.#create(head);
    // One that was left there has gone all the same.
    this.#leftovers = this.#leftovers.filter((left) => left.path !== path);
    let bytes = 0;
    try {
      for (const piece of sealed(body, new Uint8Array(ROOM_BYTES))) {
        await file.write(piece);
        bytes += piece.length;
      }
      await allEnded([file.sync(), files.syncFolder(dirname(path))]);
    } catch (error) {
      await this.#shut(file);
      await this.remove({ table, path, bytes: 0, keep: false });
      throw error;
    }
    await this.#shut(file);
    this.bytes += bytes;
    return { table, path, bytes, keep: false };
  }

  async #create(head: BatchHead): Promise<{ readonly file: OpenFile; readonly path: string }> {
    const { table } = head;
    const folder = this.#folders.get(table) ?? await makeTableFolder(this.dir, table);
    this.#folders.set(table, folder);
    const path = join(folder, segmentName(head));
    try {
      return { file: await this.dir.files.create(path), path };
    } catch (error) {
      // The folder may have been removed under us: it is made again next time.
      this.#folders.delete(table);
      throw error;
    }
  }

  async #shut(file: OpenFile): Promise<void> {
    try {
      await file.close();
    } catch (error) {
      this.dir.log.warn("segment could not be closed", { error: reasonOf(error) });
    }
  }

  /**
   * Its rows have left, or it is no good. A file that stays is sent again after a restart. To be waited
   * for where its name may be wanted again at once. Never rejects.
   */
  remove(segment: Segment): Promise<void> {
    return this.#underway.add(this.#discard(segment));
  }

  async #discard(segment: Segment): Promise<void> {
    if (!await this.#unlink(segment, "warn")) this.#leftovers.push(segment);
    else if (this.#leftovers.length > 0) await this.removeLeftovers();
  }

  /**
   * Tries again what could not be removed: what still lies there at the next start is sent a second
   * time, and where ClickHouse has forgotten its token by then it is stored a second time.
   */
  async removeLeftovers(): Promise<void> {
    const segments = this.#leftovers;
    this.#leftovers = [];
    while (segments.length > 0 && await this.#unlink(segments[0]!, "debug")) segments.shift();
    this.#leftovers.push(...segments);
  }

  async #unlink({ table, path, bytes, keep }: Segment, level: keyof Log): Promise<boolean> {
    try {
      if (keep) await moveToQuarantine(this.dir, path, `${table}.${basename(path)}`);
      else await this.dir.files.remove(path);
    } catch (error) {
      if (codeOf(error) !== "ENOENT") {
        const fields = { file: path, error: reasonOf(error) };
        this.dir.log[level]("segment could not be removed", fields);
        return false;
      }
    }
    this.bytes -= bytes;
    return true;
  }

  /**
   * Which of these are certainly gone: removed by hand, as nothing of ours removes a file while its rows
   * are held.
   */
  async findVanished(segments: readonly Segment[]): Promise<readonly Segment[]> {
    this.#folders.clear();
    const names = new Map<string, ReadonlySet<string> | null>();
    for (const folder of new Set(segments.map(({ path }) => dirname(path)))) {
      names.set(folder, await namesIn(this.dir.files, folder));
    }
    return segments.filter(({ path }) => names.get(dirname(path))?.has(basename(path)) === false);
  }

  /** Counts no more: it has vanished. */
  forget({ bytes }: Segment): void {
    this.bytes -= bytes;
  }

  /** Folders may be gone. */
  forgetFolders(): void {
    this.#folders.clear();
  }

  async close(): Promise<void> {
    await this.#underway.idle();
    await this.removeLeftovers();
  }
}

/**
 * What is in a folder; null where that cannot be told. A folder that cannot be read says nothing of what
 * is in it; one that is not in the folder above is gone with all it held.
 */
export async function namesIn(files: Files, folder: string): Promise<ReadonlySet<string> | null> {
  const names = await files.list(folder).catch(() => null);
  if (names !== null) return new Set(names);
  const above = await files.list(dirname(folder)).catch(() => null);
  return above === null || above.includes(`${basename(folder)}/`) ? null : new Set();
}
