/**
 * A faulty disk behind a gate: while it is shut, operations wait and are let through one by one in
 * any order, so that everything else can happen between two of them. It also keeps count of what is
 * open and of what went wrong.
 */

import type { FilePart, Files, OpenFile, PlacedFile } from "../../src/contracts.ts";
import type { FaultyFiles, Operation } from "../kit/faulty_files.ts";

export class GatedFiles implements Files {
  shut = false;
  /** Files that are open, by path. */
  readonly handles = new Map<string, number>();
  /** Operations that failed. */
  failures = 0;
  /** Journal files with a round that failed and that could not be said to be nothing. */
  readonly #doubtful = new Set<string>();
  readonly #waiting: { readonly operation: Operation; readonly pass: () => void }[] = [];

  constructor(readonly inner: FaultyFiles) {}

  /**
   * What a failed write left behind could not be taken back for certain: the only case in which rows
   * that were refused may turn up all the same.
   */
  get undoFailed(): boolean {
    return this.#doubtful.size > 0;
  }

  /** How many operations wait. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /** Operations that wait and are more than a look. */
  get changes(): readonly Operation[] {
    return this.#waiting.map(({ operation }) => operation)
      .filter((operation) => !["read", "readPart", "list"].includes(operation));
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

  overwrite(path: string): Promise<PlacedFile> {
    return this.pass("overwrite", path, () => this.inner.overwrite(path)).then((file) => {
      this.#count(path, 1);
      return {
        get bytes() {
          return file.bytes;
        },
        write: (data, at) => this.pass("write", path, () => file.write(data, at)),
        writeSafe: (data, at) => this.pass("sync", path, () => file.writeSafe(data, at)),
        sync: () => this.pass("sync", path, () => file.sync()),
        close: () => {
          this.#count(path, -1);
          return this.pass("close", path, () => file.close());
        },
      };
    });
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
      if (["sync", "remove", "rename"].includes(operation)) this.#doubtful.delete(path);
      return result;
    } catch (error) {
      this.failures++;
      const writing = operation === "write" || operation === "sync";
      if (writing && path.includes("/journal/")) this.#doubtful.add(path);
      throw error;
    }
  }

  #opened(file: OpenFile, path: string): OpenFile {
    this.#count(path, 1);
    return {
      get bytes() {
        return file.bytes;
      },
      write: (data) => this.pass("write", path, () => file.write(data)),
      sync: () => this.pass("sync", path, () => file.sync()),
      truncate: (bytes) => this.pass("truncate", path, () => file.truncate(bytes)),
      close: () => {
        this.#count(path, -1);
        return this.pass("close", path, () => file.close());
      },
    };
  }

  #count(path: string, more: 1 | -1): void {
    const open = (this.handles.get(path) ?? 0) + more;
    if (open > 0) this.handles.set(path, open);
    else this.handles.delete(path);
  }
}
