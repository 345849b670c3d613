/** The file that a lock is: written whole or not at all, read whatever it holds, touched to show life. */

import { constants } from "node:fs";
import { copyFile, link, open, readFile, stat, unlink, utimes } from "node:fs/promises";
import { nodeCrypto } from "../kernel/builtins.ts";
import { type Identity, parseIdentity } from "./identity.ts";
import { codeOf } from "../kernel/errors.ts";

export interface LockFile {
  /** Unlike any other lock's. */
  readonly nonce: string;
  /** Null: the content is none that we write. */
  readonly owner: Identity | null;
  /** Epoch milliseconds, by the clock of whoever touched it. */
  readonly touchedMs: number;
}

/** Null when it is not there. Rejects with the disk's error. */
export async function readLock(path: string): Promise<LockFile | null> {
  try {
    const text = await readFile(path, "utf8");
    const touchedMs = (await stat(path)).mtimeMs;
    const { owner, nonce } = parse(text);
    return { nonce, owner, touchedMs };
  } catch (error) {
    if (codeOf(error) === "ENOENT") return null;
    throw error;
  }
}

/** A new file at `path`, safe on disk; rejects when there is one. */
export async function writeLock(path: string, owner: Identity, nonce: string): Promise<void> {
  const file = await open(path, "wx", 0o600);
  try {
    await file.writeFile(JSON.stringify({ ...owner, nonce }) + "\n");
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Puts a copy of `from` at `to`, whole and at once; false when something is there already. */
export async function claim(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to).catch(async (error) => {
      if (codeOf(error) === "EEXIST") throw error;
      // A file system without hard links: as exclusive, but seen empty for a moment.
      await copyFile(from, to, constants.COPYFILE_EXCL);
    });
    return true;
  } catch (error) {
    if (codeOf(error) === "EEXIST") return false;
    throw error;
  }
}

/** Shows that the owner lives. */
export async function touchLock(path: string, nowMs: number): Promise<void> {
  await utimes(path, nowMs / 1000, nowMs / 1000);
}

/** Silent when it is gone already. */
export async function removeLock(path: string): Promise<void> {
  await unlink(path).catch(() => {});
}

function parse(text: string): { owner: Identity | null; nonce: string } {
  try {
    const value = JSON.parse(text) as { nonce?: unknown };
    const owner = parseIdentity(value);
    const { nonce } = value;
    if (owner !== null && typeof nonce === "string" && /^[0-9a-f-]{36}$/.test(nonce)) {
      return { owner, nonce };
    }
  } catch {
    // Told below.
  }
  return {
    owner: null,
    nonce: nodeCrypto().createHash("sha256").update(text).digest("hex").slice(0, 32),
  };
}
