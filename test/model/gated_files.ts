/**
 * A faulty disk behind a gate: while it is shut, operations wait and are let through one by one in
 * any order, so that everything else can happen between two of them. It also keeps count of what is
 * open and of what went wrong.
 */

import type { FilePart, Files, OpenFile } from "../../src/contracts.ts";
import type { FaultyFiles, Operation } from "../kit/faulty_files.ts";

export class GatedFiles implements Files {
  shut = false;
  /** Files that are open, by path. */
  readonly handles = new Map<string, number>();
  /** Operations that failed. */
  failures = 0;
  /**
   * What a failed write left behind could not be taken back for certain: the only case in which rows
   * that were refused may turn up all the same.
   */
  undoFailed = false;
  readonly #waiting: { readonly operation: Operation; readonly pass: () => void }[] = [];
  /** Cut back, and not synced since. */
  readonly #cutBack = new Set<string>();

  constructor(readonly inner: FaultyFiles) {}

  /** How many operations wait. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /** Operations that wait and are more than a look. */
  get changes(): readonly Operation[] {
    return this.#waiting.map(({ operation }) => operation)
      .filter((operation) => operation !== "read" && operation !== "list");
  }

  /** Lets one of the waiting operations through. */
  release(which: number): void {
    const { length } = this.#waiting;
    if (length > 0) this.#waiting.splice(which % length, 1)[0]!.pass();
  }

  open(): void {
    this.shut = false;
    for (const { pass } of this.#waiting.splice(0)) pass();
  }

  makeFolder(path: string): Promise<void> {
    return this.pass("makeFolder", path, () => this.inner.makeFolder(path));
  }

  create(path: string): Promise<OpenFile> {
    return this.pass("create", path, () => this.inner.create(path)).then((file) =>
      this.#opened(file, path)
    );
  }

  append(path: string): Promise<OpenFile> {
    return this.pass("append", path, () => this.inner.append(path)).then((file) =>
      this.#opened(file, path)
    );
  }

  list(folder: string): Promise<readonly string[]> {
    return this.pass("list", folder, () => this.inner.list(folder));
  }

  read(path: string): Promise<Uint8Array> {
    return this.pass("read", path, () => this.inner.read(path));
  }

  readPart(path: string, from: number, to: number): Promise<FilePart> {
    return this.pass("readPart", path, () => this.inner.readPart(path, from, to));
  }

  rename(from: string, to: string): Promise<void> {
    return this.pass("rename", from, () => this.inner.rename(from, to));
  }

  remove(path: string): Promise<void> {
    return this.pass("remove", path, () => this.inner.remove(path));
  }

  syncFolder(path: string): Promise<void> {
    return this.pass("syncFolder", path, () => this.inner.syncFolder(path));
  }

  async pass<T>(operation: Operation, path: string, work: () => Promise<T>): Promise<T> {
    if (this.shut) {
      await new Promise<void>((pass) => this.#waiting.push({ operation, pass }));
    }
    try {
      const result = await work();
      if (operation === "truncate") this.#cutBack.add(path);
      if (operation === "sync") this.#cutBack.delete(path);
      return result;
    } catch (error) {
      this.failures++;
      const undoing = operation === "truncate" || operation === "sync" && this.#cutBack.has(path);
      if (undoing && path.includes("/spool/")) this.undoFailed = true;
      throw error;
    }
  }

  #opened(file: OpenFile, path: string): OpenFile {
    this.handles.set(path, (this.handles.get(path) ?? 0) + 1);
    return {
      get bytes() {
        return file.bytes;
      },
      write: (data) => this.pass("write", path, () => file.write(data)),
      sync: () => this.pass("sync", path, () => file.sync()),
      truncate: (bytes) => this.pass("truncate", path, () => file.truncate(bytes)),
      close: () => {
        const left = (this.handles.get(path) ?? 0) - 1;
        if (left > 0) this.handles.set(path, left);
        else this.handles.delete(path);
        return this.pass("close", path, () => file.close());
      },
    };
  }
}
