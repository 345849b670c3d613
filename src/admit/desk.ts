/**
 * Where bodies are decoded. A small one at once, without a promise in between. A large one a slice at
 * a time, others having their turn between slices: ten megabytes of tiny rows may take a second, and
 * nobody else shall wait for it. Large ones come one after the other, so that only one of them holds
 * memory to write in.
 */

import type { Columns } from "../contracts.ts";
import { decode, type Decoded, Decoding } from "./decode.ts";
import { EventReader } from "./event.ts";
import { Ids } from "./ids.ts";
import { Lines } from "./lines.ts";
import { Names } from "./names.ts";
import type { RowReader } from "./reader.ts";
import { TableRowReader } from "./row.ts";

/** What the rows of a body are. */
export type Kind =
  | "event"
  /** `columns` null: not known. */
  | { readonly table: string; readonly columns: Columns | null };

/** A body up to here is decoded at once. */
const AT_ONCE_BYTES = 256 * 1024;
/** Of a larger one, work for about ten milliseconds: see the efforts in `decode.ts`. */
const SLICE_EFFORT = 2 * 1024 * 1024;

/** What one decoding at a time can use. */
class Tools {
  readonly lines = new Lines();
  readonly #names = new Names();
  readonly #events = new EventReader(this.lines, this.#names, new Ids());

  reader(kind: Kind): RowReader {
    if (kind === "event") return this.#events;
    return new TableRowReader(this.lines, this.#names, kind.table, kind.columns);
  }
}

export class Desk {
  readonly #atOnce = new Tools();
  readonly #inSlices = new Tools();
  /** Resolves when the large body that came last is decoded. */
  #last: Promise<unknown> = Promise.resolve();
  readonly #yield: () => Promise<void>;

  /** @param yieldTurn resolves when everybody else has had a turn. */
  constructor(yieldTurn: () => Promise<void> = nextTurn) {
    this.#yield = yieldTurn;
  }

  /** @param nowMs epoch milliseconds, for rows without a time. */
  decode(bytes: Uint8Array, kind: Kind, nowMs: number): Decoded | Promise<Decoded> {
    if (bytes.length > AT_ONCE_BYTES) {
      const decoded = this.#last.then(() => this.#slices(bytes, kind, nowMs));
      this.#last = decoded.catch(() => {});
      return decoded;
    }
    const { lines } = this.#atOnce;
    return decode(bytes, this.#atOnce.reader(kind), lines, nowMs);
  }

  async #slices(bytes: Uint8Array, kind: Kind, nowMs: number): Promise<Decoded> {
    const { lines } = this.#inSlices;
    const decoding = new Decoding(bytes, this.#inSlices.reader(kind), lines, nowMs);
    // Also before the first: to begin with a document of one piece may have taken long.
    do await this.#yield(); while (!decoding.go(SLICE_EFFORT));
    return kept(decoding.end());
  }
}

/** Whoever waits for a promise may come too late for what is lent. */
function kept(decoded: Decoded): Decoded {
  if (decoded.kind === "refused" || !decoded.lent) return decoded;
  return { ...decoded, body: decoded.body.slice(), lent: false };
}

/**
 * A timer and no immediate: a runtime that always has something to do at once looks at its sockets
 * only every 61st time, and others wait for as many slices.
 */
function nextTurn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}
