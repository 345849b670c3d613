/**
 * The scanner's other half (`scanner/main.as`): gives it the body, a window at a time, and the names of
 * columns; gathers what it puts out, and the rows that were put together elsewhere, in their order. Its
 * memory never grows. One request at a time.
 */

import { Buffer } from "node:buffer";
import { type Columns, LONGEST_TYPE_BYTES, OTHER_TYPE } from "../contracts.ts";
import { ID_BYTES } from "./ids.ts";
import { NEWLINE } from "./json.ts";
import { Names } from "./names.ts";
import { SCANNER_WASM } from "./scanner_wasm.ts";
import { Spill } from "./spill.ts";
import { inRange, isoMs } from "./timestamp.ts";
import type { Types } from "./types.ts";

/** The good rows of a request. */
export interface Gathered {
  readonly body: Uint8Array;
  /** It lies in the scanner's memory, and is gone with the next request. Else hardly more than its length. */
  readonly lent: boolean;
}

/** Of the body that the scanner has before it; a row longer than half of it may be looked at closer. */
const WINDOW_BYTES = 256 * 1024;
const OUTPUT_BYTES = 512 * 1024;
const PAGE_BYTES = 64 * 1024;
const NOTHING = new Uint8Array(0);

type Calls = Record<
  "init" | "lines" | "elements" | "addKey" | "clearKeys" | "renew",
  (...values: (number | boolean)[]) => number
>;
type Address =
  | "STATE"
  | "FRONTS"
  | "FRONT_BYTES"
  | "ID_AT"
  | "POOL"
  | "POOL_BYTES"
  | "RUNS"
  | "KEYS"
  | "KEYS_BYTES"
  | "INPUT"
  | "GUARD"
  | "FULL";

/** Compiled when it is needed first. */
let compiled: WebAssembly.Module | null = null;

// What STATE holds.
const OUT = 0;
const ROWS = 1;
const RUNS = 2;
const WHY = 3;

export class Scanner {
  readonly #calls: Calls;
  readonly #at: Readonly<Record<Address, number>>;
  readonly #memory: Uint8Array<ArrayBuffer>;
  readonly #state: Uint32Array;
  readonly #runs: Uint32Array;
  readonly #output: number;
  readonly #outputEnd: number;
  readonly #names = new Names();
  readonly #types: Types;
  readonly #spill = new Spill();
  readonly #encoder = new TextEncoder();
  #events = true;
  /** Whose names are known; undefined: nobody's. */
  #columns: Columns | null | undefined = undefined;
  #keyBytes = 0;
  #source: Uint8Array = NOTHING;
  /** What of the source is in the window: [from, to). */
  #from = 0;
  #to = 0;

  /** @param types are told of the types of events. */
  constructor(types: Types) {
    this.#types = types;
    compiled ??= new WebAssembly.Module(Buffer.from(SCANNER_WASM, "base64"));
    const { exports } = new WebAssembly.Instance(compiled, {
      host: {
        isTime: (from: number, to: number) => inRange(isoMs(this.#memory, from, to)),
        refill: () => {
          const { POOL, POOL_BYTES } = this.#at;
          crypto.getRandomValues(this.#memory.subarray(POOL, POOL + POOL_BYTES));
        },
      },
    });
    this.#calls = exports as unknown as Calls;
    const addresses = Object.entries(exports).flatMap(([name, value]) =>
      value instanceof WebAssembly.Global ? [[name, value.value as number]] : []
    );
    const at: Record<Address, number> = this.#at = Object.fromEntries(addresses);
    this.#output = at.INPUT + WINDOW_BYTES + at.GUARD;
    this.#outputEnd = this.#output + OUTPUT_BYTES;
    const memory = exports["memory"] as WebAssembly.Memory;
    const missing = this.#outputEnd + at.GUARD - memory.buffer.byteLength;
    memory.grow(Math.ceil(missing / PAGE_BYTES));
    this.#memory = new Uint8Array(memory.buffer as ArrayBuffer);
    this.#state = new Uint32Array(memory.buffer, at.STATE, 4);
    this.#runs = new Uint32Array(memory.buffer, at.RUNS);
    this.#calls.init(this.#outputEnd);
    this.#begin();
  }

  /** Rows are events from now on. */
  events(): void {
    this.#events = true;
  }

  /**
   * What is put in front of events that lack it from now on: members with their commas.
   * @param id `"id":"…",`; what is random in it is made anew each time.
   */
  putInFront(id: string, time: string): void {
    const { FRONTS, FRONT_BYTES } = this.#at;
    for (const [index, front] of [`{${id}${time}`, `{${id}`, `{${time}`].entries()) {
      const at = FRONTS + index * FRONT_BYTES;
      const { written } = this.#encoder.encodeInto(front, this.#memory.subarray(at + 4));
      this.#memory[at] = written;
    }
  }

  /** An id as it would be put in front. */
  newId(): string {
    const { FRONTS, ID_AT } = this.#at;
    const at = FRONTS + 4 + ID_AT;
    this.#calls.renew(at);
    return String.fromCharCode(...this.#memory.subarray(at, at + ID_BYTES));
  }

  /** Rows are a table's from now on, with keys that are columns; null: none is known yet. */
  rowsOf(columns: Columns | null): void {
    this.#events = false;
    if (columns === this.#columns) return;
    this.#forgetKeys();
    this.#columns = columns;
    for (const name of columns?.names ?? []) if (!this.#addKey(name)) break;
  }

  /** Where no columns are known: a row may have this key. */
  learn(key: string): void {
    if (this.#columns === null && !this.#addKey(key)) this.#forgetKeys();
  }

  /** Begins a request; `source` must not change until `finish`. */
  open(source: Uint8Array): void {
    this.#source = source;
    this.#begin();
    this.#load(0);
  }

  /** Taken from the source since `open`. */
  get rows(): number {
    return this.#state[ROWS]!;
  }

  /**
   * Takes rows from `at` of the source on, each on a line of its own; of those that begin before `until`
   * as many as it likes. Returns where the next one begins: at `at` when this one must be looked at closer.
   */
  lines(at: number, until: number): number {
    return this.#scan(at, until, false);
  }

  /**
   * Takes elements of an array likewise, the first of which begins at `at`. Returns where the separator
   * behind the last one is, or `at`.
   */
  elements(at: number, until: number): number {
    return this.#scan(at, until, true);
  }

  /** Takes a whole row that was put together elsewhere, without its line end. */
  text(line: string): void {
    const bytes = Buffer.byteLength(line) + 1;
    if (this.#state[OUT]! + bytes > this.#outputEnd) this.#drain();
    if (bytes > OUTPUT_BYTES) return this.#spill.add(this.#encoder.encode(`${line}\n`));
    const room = this.#memory.subarray(this.#state[OUT]);
    this.#encoder.encodeInto(line, room);
    room[bytes - 1] = NEWLINE;
    this.#state[OUT]! += bytes;
  }

  /** All rows since `open`. */
  finish(): Gathered {
    this.#tellTypes();
    this.#source = NOTHING;
    const body = this.#memory.subarray(this.#output, this.#state[OUT]);
    if (this.#spill.bytes === 0) return { body, lent: true };
    this.#spill.add(body);
    return { body: this.#spill.take(), lent: false };
  }

  /** As `lines`, or as `elements` of an array. */
  #scan(at: number, until: number, array: boolean): number {
    const { lines, elements } = this.#calls;
    const { INPUT, FULL } = this.#at;
    for (;;) {
      if (at < this.#from || at >= this.#to) this.#load(at);
      const base = INPUT - this.#from;
      const from = base + at, to = base + Math.min(until, this.#to), end = base + this.#to;
      const stopped = (array
        ? elements(this.#events, from, to)
        : lines(this.#events, from, to, end, this.#to === this.#source.length)) - base;
      if (stopped > at) {
        return stopped;
      }
      if (this.#state[WHY] === FULL) {
        this.#drain();
        continue;
      }
      // The end of the row may lie behind the window. Not each odd row may move it: that takes longer
      // than most of them are long.
      if (at - this.#from < WINDOW_BYTES / 2 || this.#to === this.#source.length) {
        return at;
      }
      this.#load(at);
    }
  }

  /** Moves the window. */
  #load(from: number): void {
    // They point into it.
    this.#tellTypes();
    const { INPUT, GUARD } = this.#at;
    const source = this.#source;
    const bytes = Math.min(source.length - from, WINDOW_BYTES);
    this.#memory.set(bytes === source.length ? source : source.subarray(from, from + bytes), INPUT);
    this.#memory.fill(0, INPUT + bytes, INPUT + bytes + GUARD);
    this.#from = from;
    this.#to = from + bytes;
  }

  #begin(): void {
    this.#spill.empty();
    this.#state[OUT] = this.#output;
    this.#state[ROWS] = this.#state[RUNS] = 0;
  }

  /** Makes room in the scanner's memory. */
  #drain(): void {
    this.#tellTypes();
    this.#spill.add(this.#memory.subarray(this.#output, this.#state[OUT]));
    this.#state[OUT] = this.#output;
  }

  #tellTypes(): void {
    const runs = this.#runs;
    for (let run = 0, at = 0; run < this.#state[RUNS]!; run++) {
      const from = runs[at++]!, bytes = runs[at++]!, rows = runs[at++]!;
      const type = bytes > LONGEST_TYPE_BYTES
        ? OTHER_TYPE
        : this.#names.text(this.#memory, from, from + bytes);
      this.#types.add(type, rows);
    }
    this.#state[RUNS] = 0;
  }

  /** Whether there was room for it. */
  #addKey(key: string): boolean {
    const { KEYS, KEYS_BYTES } = this.#at;
    const room = this.#memory.subarray(KEYS + this.#keyBytes, KEYS + KEYS_BYTES);
    const { read, written } = this.#encoder.encodeInto(key, room);
    if (read < key.length) return false;
    const added = this.#calls.addKey(room.byteOffset, written) !== 0;
    if (added) this.#keyBytes += written;
    return added;
  }

  #forgetKeys(): void {
    this.#calls.clearKeys();
    this.#keyBytes = 0;
  }
}
