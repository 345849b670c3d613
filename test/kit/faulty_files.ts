/**
 * `Files` in memory, for tests that let the disk fail: scripted errors, a full or read-only disk, a
 * folder that somebody deletes, and a crash at any operation, of the process or of the power. Without
 * faults it behaves as the real one does (`test/contract/files_test.ts`).
 */

import type { FilePart, Files, OpenFile, PlacedFile } from "../../src/contracts.ts";
import { type Chance, DiskFile, seeded } from "./faulty_bytes.ts";
import { Disk, DiskFolder, systemError } from "./faulty_disk.ts";

export type Operation = keyof Files | Exclude<keyof OpenFile, "bytes">;

export interface Fault {
  readonly on: Operation | readonly Operation[];
  /** A part of the path; every path where not given. */
  readonly path?: string;
  /** `EIO`, `ENOSPC`, … On `sync` the unsynced bytes may be lost for good, also to a later sync. */
  readonly code: string;
  /** How many matching operations succeed before; 0. */
  readonly skip?: number;
  /** How many fail; 1. */
  readonly times?: number;
  /** On `write`: how many bytes get there all the same; 0. */
  readonly written?: number;
}

const identities = new WeakMap<DiskFile, number>();
let lastIdentity = 0;

function identityOf(file: DiskFile): number {
  const known = identities.get(file) ?? ++lastIdentity;
  identities.set(file, known);
  return known;
}

const CHANGES: readonly Operation[] = [
  "makeFolder",
  "create",
  "append",
  "overwrite",
  "rename",
  "remove",
  "write",
  "truncate",
];

export class FaultyFiles implements Files {
  /** Begun so far, of every kind. */
  operations = 0;
  /** As `write /data/spool/t/x`, in order. */
  readonly trace: string[] = [];
  /** `EROFS` on every change. */
  readOnly = false;
  /** Bytes of all files together; a write beyond them is cut short and fails with `ENOSPC`. */
  capacityBytes = Infinity;
  /** Resolves when the crash asked for with `crashAt` has come. */
  readonly crashed: Promise<void>;
  readonly chance: Chance;
  #disk: Disk;
  #faults: { readonly fault: Fault; skip: number; times: number }[] = [];
  #crashAt = Infinity;
  #over = false;
  #tellCrashed: () => void = () => {};

  constructor(seed = 1, disk = new Disk()) {
    this.chance = seeded(seed);
    this.#disk = disk;
    this.crashed = new Promise((resolve) => this.#tellCrashed = resolve);
  }

  // ------------------------------------------------------------ what a test does to it

  /** Scripts an error; the answer takes it back. */
  fail(fault: Fault): () => void {
    const armed = { fault, skip: fault.skip ?? 0, times: fault.times ?? 1 };
    this.#faults.push(armed);
    return () => void (armed.times = 0);
  }

  /** Takes all scripted errors back. */
  heal(): void {
    this.#faults = [];
  }

  /** The operation with this number (1-based) is done, half done or not done, and nothing after it. */
  crashAt(operation: number): void {
    this.#crashAt = operation;
  }

  /**
   * Ends this process: operations never settle from now on.
   * @returns what the next process finds: after a power cut only what was synced for certain, else
   * everything that was written.
   */
  crash(how: "process" | "power"): FaultyFiles {
    this.#over = true;
    const disk = how === "power" ? this.#disk.afterPowerCut(this.chance) : this.#disk;
    return new FaultyFiles(Math.floor(this.chance() * 2 ** 31), disk);
  }

  /** Somebody deletes a folder with all in it. Files that are open stay open. */
  deleteTree(path: string): void {
    this.#disk.removeTree(path);
  }

  /** A file as it stands there, folders made as needed; safe at once. */
  put(path: string, content: Uint8Array | string): void {
    const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content.slice();
    this.#disk.put(path, bytes);
  }

  /** Null when there is no such file. */
  get(path: string): Uint8Array | null {
    const entry = this.#disk.find(path);
    return entry instanceof DiskFile ? entry.bytes : null;
  }

  /** Every file's path, sorted. */
  paths(): string[] {
    return [...this.#disk.files()].map(([path]) => path).sort();
  }

  // ------------------------------------------------------------ Files

  makeFolder(path: string): Promise<void> {
    return this.run("makeFolder", path, () => this.#disk.makeFolder(path));
  }

  create(path: string): Promise<OpenFile> {
    return this.run("create", path, () => this.#opened(path, true));
  }

  append(path: string): Promise<OpenFile> {
    return this.run("append", path, () => this.#opened(path, false));
  }

  overwrite(path: string): Promise<PlacedFile> {
    return this.run("overwrite", path, () => this.#opened(path, false));
  }

  list(path: string): Promise<readonly string[]> {
    return this.run(
      "list",
      path,
      () =>
        [...this.#disk.folder(path, "scandir").entries].map(([name, entry]) =>
          entry instanceof DiskFolder ? `${name}/` : name
        ).sort(),
    );
  }

  read(path: string): Promise<Uint8Array> {
    return this.run("read", path, () => {
      const entry = this.#disk.find(path);
      if (entry === null) throw systemError("ENOENT", "open", path);
      if (entry instanceof DiskFolder) throw systemError("EISDIR", "read", path);
      return entry.bytes.slice();
    });
  }

  readPart(path: string, from: number, to: number): Promise<FilePart> {
    return this.run("readPart", path, () => {
      const entry = this.#disk.find(path);
      if (entry === null) throw systemError("ENOENT", "open", path);
      if (entry instanceof DiskFolder) throw systemError("EINVAL", "read", path);
      const { bytes } = entry;
      return { bytes: bytes.slice(from, to), size: bytes.length, identity: identityOf(entry) };
    });
  }

  rename(from: string, to: string): Promise<void> {
    return this.run("rename", from, () => this.#disk.rename(from, to));
  }

  remove(path: string): Promise<void> {
    return this.run("remove", path, () => this.#disk.remove(path));
  }

  syncFolder(path: string): Promise<void> {
    return this.run("syncFolder", path, () => {
      this.#disk.syncFolder(this.#disk.folder(path, "fsync"));
    });
  }

  // ------------------------------------------------------------ how an operation goes

  /**
   * Counts, fails as scripted, or does it. `half` is what is done of it all the same: by that fault, or
   * by a crash (null).
   */
  async run<T>(
    operation: Operation,
    path: string,
    effect: () => T,
    half: (fault: Fault | null) => void = () => {},
  ): Promise<T> {
    await this.#turn();
    this.operations++;
    this.trace.push(`${operation} ${path}`);
    if (this.operations >= this.#crashAt) {
      this.#crashWithin(effect, () => half(null));
    }
    await this.#turn();
    if (this.readOnly && CHANGES.includes(operation)) throw systemError("EROFS", operation, path);
    const fault = this.#faultFor(operation, path);
    if (fault !== null) {
      half(fault);
      throw systemError(fault.code, operation, path);
    }
    const result = effect();
    await this.#turn();
    return result;
  }

  /** Bytes that may still be written. */
  get freeBytes(): number {
    if (this.capacityBytes === Infinity) return Infinity;
    let used = 0;
    for (const [, file] of this.#disk.files()) used += file.bytes.length;
    return Math.max(0, this.capacityBytes - used);
  }

  /** Others get a turn; nobody does once the process is over. */
  async #turn(): Promise<void> {
    await (this.#over ? new Promise(() => {}) : null);
    if (this.#over) await new Promise(() => {});
  }

  #faultFor(operation: Operation, path: string): Fault | null {
    for (const armed of this.#faults) {
      const { fault } = armed;
      const on = typeof fault.on === "string" ? [fault.on] : fault.on;
      if (!on.includes(operation) || !path.includes(fault.path ?? "")) continue;
      if (armed.times <= 0 || armed.skip-- > 0) continue;
      armed.times--;
      return fault;
    }
    return null;
  }

  #crashWithin(...outcomes: readonly (() => void)[]): void {
    try {
      outcomes[Math.floor(this.chance() * (outcomes.length + 1))]?.();
    } catch {
      // Nobody is left to be told.
    }
    this.#over = true;
    this.#tellCrashed();
  }

  #opened(path: string, exclusive: boolean): FaultyFile {
    return new FaultyFile(this, this.#disk.open(path, exclusive), path);
  }
}

class FaultyFile implements OpenFile, PlacedFile {
  bytes: number;
  #closed = false;
  #busy = false;

  constructor(readonly files: FaultyFiles, readonly file: DiskFile, readonly path: string) {
    this.bytes = file.bytes.length;
  }

  /** At the end where no place is named. */
  async write(data: Uint8Array, place?: number): Promise<void> {
    const at = () => place ?? this.file.bytes.length;
    await this.#alone("write", () => {
      // What is there already takes no room.
      const room = Math.max(0, this.file.bytes.length - at()) + this.files.freeBytes;
      this.file.write(data.subarray(0, room), at());
      if (room < data.length) throw systemError("ENOSPC", "write", this.path);
      this.bytes = place === undefined
        ? this.bytes + data.length
        : Math.max(this.bytes, place + data.length);
    }, (fault) => {
      const share = Math.floor(this.files.chance() * (data.length + 1));
      this.file.write(data.subarray(0, fault === null ? share : fault.written ?? 0), at());
    });
  }

  /** Both, one after the other: each may go wrong. */
  async writeSafe(data: Uint8Array, at: number): Promise<void> {
    await this.write(data, at);
    await this.sync(at, at + data.length);
  }

  sync(start?: number, end?: number): Promise<void> {
    let done = this.file.beginSync(start, end);
    return this.files.run("sync", this.path, () => {
      if (this.#closed) throw systemError("EBADF", "fdatasync", this.path);
      done();
      if (this.file.unlinked) throw systemError("ENOENT", "fdatasync", this.path);
    }, (fault) => {
      done = () => {};
      if (fault !== null) this.file.failSync(this.files.chance);
    });
  }

  async truncate(bytes: number): Promise<void> {
    await this.#alone("truncate", () => {
      this.file.truncate(bytes);
      this.bytes = bytes;
    });
  }

  async close(): Promise<void> {
    await this.files.run("close", this.path, () => void (this.#closed = true));
  }

  /** Two at once would be a bug of the caller: their bytes could mix. */
  async #alone(
    operation: Operation,
    effect: () => void,
    half?: (fault: Fault | null) => void,
  ): Promise<void> {
    if (this.#busy) {
      throw new Error(`${operation} while another change of ${this.path} is under way`);
    }
    this.#busy = true;
    try {
      await this.files.run(operation, this.path, () => {
        if (this.#closed) throw systemError("EBADF", operation, this.path);
        effect();
      }, half);
    } finally {
      this.#busy = false;
    }
  }
}
