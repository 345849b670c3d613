/**
 * Removes segments whose rows have left. A file that the disk keeps is tried again with the next ones
 * and when the disk is well again: what still lies there at the next start is sent a second time, and
 * where ClickHouse has forgotten its token by then it is stored a second time.
 */

import { basename } from "node:path";
import { codeOf, reasonOf } from "../kernel/errors.ts";
import { type Place } from "./layout.ts";
import { moveToQuarantine } from "./quarantine.ts";
import { Underway } from "../kernel/time.ts";

/** A file that is of no more use. */
export interface Discarded {
  readonly path: string;
  readonly table: string;
  readonly bytes: number;
  /** Damaged parts of it are nowhere else: it goes to quarantine. */
  readonly keep: boolean;
}

export class Disposal {
  #leftovers: Discarded[] = [];
  readonly #removing = new Underway();

  /** @param onGone called with the size of each file that is gone. */
  constructor(readonly place: Place, readonly onGone: (bytes: number) => void) {}

  /** Never rejects. @param closed resolves when the file is not open any more. */
  discard(file: Discarded, closed: Promise<void>): Promise<void> {
    return this.#removing.add(closed.then(() => this.#discard(file)));
  }

  /** Tries again what could not be removed. */
  async retry(): Promise<void> {
    const files = this.#leftovers;
    this.#leftovers = [];
    while (files.length > 0 && await this.#remove(files[0]!, "debug")) files.shift();
    this.#leftovers.push(...files);
  }

  /** Resolves when nothing is being removed. */
  idle(): Promise<void> {
    return this.#removing.idle();
  }

  async #discard(file: Discarded): Promise<void> {
    if (!await this.#remove(file, "warn")) this.#leftovers.push(file);
    else if (this.#leftovers.length > 0) await this.retry();
  }

  async #remove(
    { path, table, bytes, keep }: Discarded,
    level: "warn" | "debug",
  ): Promise<boolean> {
    try {
      if (keep) await moveToQuarantine(this.place, path, `${table}.${basename(path)}`);
      else await this.place.files.remove(path);
    } catch (error) {
      if (codeOf(error) !== "ENOENT") {
        this.place.log[level]("segment could not be removed", {
          file: path,
          error: reasonOf(error),
        });
        return false;
      }
    }
    this.onGone(bytes);
    return true;
  }
}
