/** The little that the spool asks of a disk; the real one and a faulty one for tests fulfil it. */

/**
 * The little that the spool asks of a disk. Methods reject with an error whose `code` is the
 * system's (`ENOSPC`, `EIO`, `EROFS`, `ENOENT`, …); whoever calls turns that into an outcome.
 */
export interface Files {
  /** With its parents; 0700. No error when it is there. */
  makeFolder(path: string): Promise<void>;
  /** A new file for appending, 0600; `EEXIST` when it is there. */
  create(path: string): Promise<OpenFile>;
  /** An existing or new file for appending, 0600. */
  append(path: string): Promise<OpenFile>;
  /** Names in a folder, sorted; folders end in `/`. */
  list(folder: string): Promise<readonly string[]>;
  read(path: string): Promise<Uint8Array>;
  rename(from: string, to: string): Promise<void>;
  remove(path: string): Promise<void>;
  /** Makes creations, renames and removals in it survive a power cut. */
  syncFolder(path: string): Promise<void>;
}

export interface OpenFile {
  /** At the time of opening, then kept up by `write`. */
  readonly bytes: number;
  /** Appends all of it, or rejects; then a part of it may be there. */
  write(data: Uint8Array): Promise<void>;
  /** Data and length survive a power cut once this resolves. */
  sync(): Promise<void>;
  truncate(bytes: number): Promise<void>;
  close(): Promise<void>;
}

/** What reading a file that may be large asks for besides. */
export interface FileParts {
  /**
   * The bytes in [from, to), fewer where the file ends before; how long the file is, and which one it
   * is: another file of the same name has another `identity`.
   */
  readPart(path: string, from: number, to: number): Promise<FilePart>;
}

export interface FilePart {
  readonly bytes: Uint8Array;
  readonly size: number;
  readonly identity: number;
}
