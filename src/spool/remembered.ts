/**
 * What journals remember beside rows, put together from their frames in the order in which they were written.
 * The same memo may stand in several, for it is written again where its file is wanted; of what is newer
 * the rest is nothing, and of a partition nothing counts up to where its broker was said to have it.
 */

import type { Recovered } from "../contracts.ts";
import { comparePositions } from "../kernel/positions.ts";
import type { Reached } from "./frame.ts";
import type { JournalFile } from "./journal.ts";

/** A memo, and the newest file in which it stands. */
export interface InFile<M extends Recovered = Recovered> {
  readonly memo: M;
  readonly file: JournalFile;
}

type RecoveredMark = Extract<Recovered, { readonly position: string }>;

export class Remembered {
  /** Keys and ids. */
  readonly #named = new Map<string, InFile>();
  /** By source and partition, and there by batch: each has a mark of its own. */
  readonly #marks = new Map<string, Map<string, InFile<RecoveredMark>>>();

  add(file: JournalFile, said: Recovered | Reached): void {
    if (!("position" in said)) this.#addNamed(file, said);
    else if ("gone" in said) this.#addMark(file, said);
    else this.#reached(said);
  }

  get all(): InFile[] {
    return [
      ...this.#named.values(),
      ...[...this.#marks.values()].flatMap((partition) => [...partition.values()]),
    ];
  }

  /** A key may have been taken again after its time. */
  #addNamed(file: JournalFile, memo: Exclude<Recovered, RecoveredMark>): void {
    const name = "key" in memo
      ? JSON.stringify([memo.table, memo.key])
      : JSON.stringify([memo.table, memo.source, memo.sinceMs, memo.ids]);
    const known = this.#named.get(name)?.memo;
    if (known !== undefined && "sinceMs" in known && known.sinceMs > memo.sinceMs) return;
    const isSame = known !== undefined && "sinceMs" in known && known.sinceMs === memo.sinceMs;
    const batches = isSame ? [...new Set([...known.batches, ...memo.batches])] : memo.batches;
    this.#named.set(name, { memo: { ...memo, batches }, file });
  }

  #addMark(file: JournalFile, memo: RecoveredMark): void {
    const name = nameOf(memo);
    const partition = this.#marks.get(name) ?? new Map<string, InFile<RecoveredMark>>();
    this.#marks.set(name, partition);
    const batches = memo.batches.join();
    const known = partition.get(batches)?.memo;
    if (known !== undefined && comparePositions(memo.position, known.position) < 0) return;
    partition.set(batches, { memo, file });
  }

  #reached(reached: Reached): void {
    const partition = this.#marks.get(nameOf(reached));
    if (partition === undefined) return;
    for (const [batches, { memo }] of partition) {
      if (comparePositions(memo.position, reached.position) <= 0) partition.delete(batches);
    }
  }
}

function nameOf({ source, partition }: Pick<Reached, "source" | "partition">): string {
  return JSON.stringify([source, partition]);
}
