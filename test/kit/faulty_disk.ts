/**
 * A disk in memory that knows what a power cut leaves of it. Two images lie side by side: what programs
 * see, and what is safe. Data becomes safe by syncing the file; names (creations, renames, removals)
 * by syncing the folder. Of everything else a power cut keeps nothing, a part, or all, as chance has
 * it: a prefix of the bytes or all of them with a hole of zeros; any of the changes to folders, but
 * none without an earlier one to the same name. A rename is kept whole or not at all, and is safe once
 * either of its folders is synced, as on a journaling file system.
 */

import { type Chance, DiskFile } from "./faulty_bytes.ts";

export type Entry = DiskFile | DiskFolder;

export class DiskFolder {
  readonly entries: Map<string, Entry>;
  readonly safe = new Map<string, Entry>();

  /** @param caseBlind as on most disks of macOS and Windows; so is every folder inside. */
  constructor(readonly caseBlind = false) {
    this.entries = caseBlind ? new CaseBlindNames() : new Map();
  }
}

/** Names that differ in case only are one name, as it was first written. */
class CaseBlindNames extends Map<string, Entry> {
  override get(name: string) {
    return super.get(this.#known(name));
  }

  override set(name: string, entry: Entry) {
    return super.set(this.#known(name), entry);
  }

  override delete(name: string) {
    return super.delete(this.#known(name));
  }

  #known(name: string): string {
    const is = (other: string) => other.toLowerCase() === name.toLowerCase();
    return [...this.keys()].find(is) ?? name;
  }
}

/** One change to names; its edits are kept together or not at all. */
type Change = readonly {
  readonly folder: DiskFolder;
  readonly name: string;
  readonly entry: Entry | null;
}[];

/** Folders and files as the system's calls see them; errors carry the system's codes. */
export class Disk {
  #unsafe: Change[] = [];

  constructor(readonly root = new DiskFolder()) {}

  makeFolder(path: string): void {
    let folder = this.root;
    const names = namesOf(path);
    names.forEach((name, at) => {
      const known = folder.entries.get(name);
      if (known instanceof DiskFile) {
        throw systemError(at === names.length - 1 ? "EEXIST" : "ENOTDIR", "mkdir", path);
      }
      const inside = known ?? new DiskFolder(folder.caseBlind);
      if (known === undefined) this.#change([{ folder, name, entry: inside }]);
      folder = inside;
    });
  }

  /** The file at `path`, a fresh one where there is none. */
  open(path: string, exclusive: boolean): DiskFile {
    const { folder, name } = this.#place(path);
    const known = folder.entries.get(name);
    if (known !== undefined && exclusive) throw systemError("EEXIST", "open", path);
    if (known instanceof DiskFolder) throw systemError("EISDIR", "open", path);
    if (known !== undefined) return known;
    const file = new DiskFile();
    this.#change([{ folder, name, entry: file }]);
    return file;
  }

  /** Null when there is none. */
  find(path: string): Entry | null {
    let entry: Entry = this.root;
    for (const name of namesOf(path)) {
      const inside: Entry | undefined = entry instanceof DiskFolder
        ? entry.entries.get(name)
        : undefined;
      if (inside === undefined) return null;
      entry = inside;
    }
    return entry;
  }

  folder(path: string, call: string): DiskFolder {
    const entry = this.find(path);
    if (entry === null) throw systemError("ENOENT", call, path);
    if (entry instanceof DiskFile) throw systemError("ENOTDIR", call, path);
    return entry;
  }

  rename(from: string, to: string): void {
    const source = this.#place(from);
    const target = this.#place(to);
    const entry = source.folder.entries.get(source.name);
    if (entry === undefined) throw systemError("ENOENT", "rename", from);
    const over = target.folder.entries.get(target.name);
    if (over === entry) return;
    if (over instanceof DiskFolder) {
      if (entry instanceof DiskFile) throw systemError("EISDIR", "rename", to);
      if (over.entries.size > 0) throw systemError("ENOTEMPTY", "rename", to);
    } else if (over !== undefined) {
      if (entry instanceof DiskFolder) throw systemError("ENOTDIR", "rename", to);
      over.unlinked = true;
    }
    this.#change([{ ...source, entry: null }, { ...target, entry }]);
  }

  remove(path: string): void {
    const { folder, name } = this.#place(path);
    const entry = folder.entries.get(name);
    if (entry === undefined) throw systemError("ENOENT", "unlink", path);
    if (entry instanceof DiskFolder) throw systemError("EISDIR", "unlink", path);
    entry.unlinked = true;
    this.#change([{ folder, name, entry: null }]);
  }

  /** With all in it; safe at once. */
  removeTree(path: string): void {
    const { folder, name } = this.#place(path);
    const entry = folder.entries.get(name);
    if (entry !== undefined) unlinkAll(entry);
    this.#change([{ folder, name, entry: null }]);
    this.syncFolder(folder);
  }

  /** A file as it stands there, folders made as needed; safe at once. */
  put(path: string, bytes: Uint8Array): void {
    let folder = this.root;
    const names = namesOf(path);
    names.forEach((name, at) => {
      const entry = at === names.length - 1
        ? new DiskFile(bytes)
        : folder.entries.get(name) ?? new DiskFolder(folder.caseBlind);
      this.#change([{ folder, name, entry }]);
      this.syncFolder(folder);
      if (entry instanceof DiskFolder) folder = entry;
    });
  }

  /** Every file with its path. */
  *files(folder = this.root, at = ""): Iterable<[path: string, file: DiskFile]> {
    for (const [name, entry] of folder.entries) {
      if (entry instanceof DiskFile) yield [`${at}/${name}`, entry];
      else yield* this.files(entry, `${at}/${name}`);
    }
  }

  syncFolder(folder: DiskFolder): void {
    this.#keep(this.#unsafe.filter((change) => change.some((edit) => edit.folder === folder)));
  }

  /** What the machine finds when it is up again. This disk is not to be used afterwards. */
  afterPowerCut(chance: Chance): Disk {
    const mode = Math.floor(chance() * 4);
    const upTo = Math.floor(chance() * (this.#unsafe.length + 1));
    this.#keep(
      this.#unsafe.filter((_, at) =>
        mode === 0 ? false : mode === 1 ? true : mode === 2 ? at < upTo : chance() < 0.5
      ),
    );
    return new Disk(survivor(this.root, chance, new Map()) as DiskFolder);
  }

  #place(path: string): { folder: DiskFolder; name: string } {
    const names = namesOf(path);
    const name = names.pop() ?? "";
    return { folder: this.folder(names.join("/"), "open"), name };
  }

  #change(change: Change): void {
    for (const { folder, name, entry } of change) set(folder.entries, name, entry);
    this.#unsafe.push(change);
  }

  /** Makes these safe, and the earlier changes of the same names that they build on. */
  #keep(chosen: readonly Change[]): void {
    const kept = new Set(chosen);
    const names = (change: Change) => change.map(({ folder, name }) => ({ folder, name }));
    const needed: ReturnType<typeof names> = [];
    for (const change of this.#unsafe.toReversed()) {
      const shares = names(change).some((a) =>
        needed.some((b) => a.folder === b.folder && a.name === b.name)
      );
      if (shares) kept.add(change);
      if (kept.has(change)) needed.push(...names(change));
    }
    for (const change of this.#unsafe) {
      if (!kept.has(change)) continue;
      for (const { folder, name, entry } of change) set(folder.safe, name, entry);
    }
    this.#unsafe = this.#unsafe.filter((change) => !kept.has(change));
  }
}

/** A copy of what is safe of an entry; one that two names lead to stays one. */
function survivor(entry: Entry, chance: Chance, done: Map<Entry, Entry>): Entry {
  const known = done.get(entry);
  if (known !== undefined) return known;
  if (entry instanceof DiskFile) {
    const file = new DiskFile(entry.afterPowerCut(chance));
    done.set(entry, file);
    return file;
  }
  const folder = new DiskFolder(entry.caseBlind);
  done.set(entry, folder);
  for (const [name, inside] of entry.safe) {
    const copy = survivor(inside, chance, done);
    folder.entries.set(name, copy);
    folder.safe.set(name, copy);
  }
  return folder;
}

function set(names: Map<string, Entry>, name: string, entry: Entry | null): void {
  if (entry === null) names.delete(name);
  else names.set(name, entry);
}

function unlinkAll(entry: Entry): void {
  if (entry instanceof DiskFile) entry.unlinked = true;
  else for (const inside of entry.entries.values()) unlinkAll(inside);
}

function namesOf(path: string): string[] {
  return path.split("/").filter((name) => name !== "" && name !== ".");
}

/** As the runtime's own: `code` is the system's. */
export function systemError(code: string, call: string, path: string): Error {
  return Object.assign(new Error(`${code}: faulty disk, ${call} '${path}'`), { code, path });
}
