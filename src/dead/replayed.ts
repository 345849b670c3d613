/**
 * What a replay has done with the letters of one file: a journal beside it, `TABLE.ID.replay`. Before
 * letters are sent it says which of them go together, so that whoever goes on after a crash sends the
 * same ones under the same id; afterwards, that they are done. It goes with the file, or once the
 * letters that are done are out of it.
 */

import { join } from "node:path";
import type { Files } from "../spool/files.ts";
import { deadFolder } from "../spool/data_dir.ts";
import { type Letter, LetterSet } from "./letter.ts";

type Place = readonly [batch: string, index: number];

/** Letters that were sent together, and nobody knows what became of them. */
export interface Sent {
  readonly id: string;
  /** In the order of sending. */
  readonly places: readonly Place[];
}

export interface Replayed {
  /** Stored, or letters again in another file. */
  readonly done: LetterSet;
  readonly open: readonly Sent[];
}

/** Appends to the journal; each answer means synced. Rejects with the system's error. */
export interface Journal {
  sent(id: string, letters: readonly Letter[]): Promise<void>;
  done(id: string): Promise<void>;
  /** The collector took none of them: they may go in other company next time. */
  refused(id: string): Promise<void>;
  close(): Promise<void>;
}

export function journalName(file: string): string {
  return file.replace(/\.ndjson$/, ".replay");
}

export async function openJournal(files: Files, dataDir: string, name: string): Promise<Journal> {
  const folder = deadFolder(dataDir);
  const file = await files.append(join(folder, journalName(name)));
  const encoder = new TextEncoder();
  // A crash may have torn the last line; a line of its own keeps the next one whole.
  let before = file.bytes > 0 ? "\n" : "";
  await files.syncFolder(folder);
  const write = async (entry: Readonly<Record<string, unknown>>) => {
    await file.write(encoder.encode(`${before}${JSON.stringify(entry)}\n`));
    await file.sync();
    before = "";
  };
  return {
    sent: (id, letters) =>
      write({ sent: id, letters: letters.map(({ batch, index }) => [batch, index]) }),
    done: (id) => write({ done: id }),
    refused: (id) => write({ refused: id }),
    close: () => file.close(),
  };
}

/** Reads a journal; lines that make no sense are passed over, for their letters were never sent. */
export function replayedOf(text: string): Replayed {
  const done = new LetterSet();
  const open = new Map<string, Sent>();
  for (const line of text.split("\n")) {
    const entry = parsed(line);
    if (entry === null) continue;
    if (entry.sent !== undefined) {
      open.set(entry.sent, { id: entry.sent, places: entry.letters ?? [] });
      continue;
    }
    const sent = open.get(entry.done ?? entry.refused ?? "");
    if (entry.done !== undefined) {
      for (const [batch, index] of sent?.places ?? []) done.add({ batch, index });
    }
    if (sent !== undefined) open.delete(sent.id);
  }
  return { done, open: [...open.values()] };
}

interface Entry {
  readonly sent?: string;
  readonly letters?: readonly Place[];
  readonly done?: string;
  readonly refused?: string;
}

function parsed(line: string): Entry | null {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === "object" ? value as Entry : null;
  } catch {
    return null;
  }
}
