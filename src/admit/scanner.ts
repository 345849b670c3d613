/**
 * The scanner's other half (`scanner/scan.as`): gives it the body, a window at a time, and the names of
 * columns; gathers what it puts out, and the rows that were put together elsewhere, in their order. Its
 * memory never grows. One request at a time.
 */

import { Buffer } from "node:buffer";
import { type Columns, LONGEST_TYPE_BYTES, OTHER_TYPE, type TypeCounts } from "../contracts.ts";
import { SCANNER_WASM } from "./scanner_wasm.ts";
import { type Program, programOf } from "./types.ts";
import { EARLIEST_MS, eventTime, type EventWindow, LATEST_MS } from "./timestamp.ts";

/** The good rows of a request. */
export interface Gathered {
  readonly body: Uint8Array;
  /** It lies in the scanner's memory, and is gone with the next request. Else hardly more than its length. */
  readonly lent: boolean;
  /** How many rows of each event type. */
  readonly types: TypeCounts;
  /** Of rows of a table: the keys that they have, and perhaps some of refused rows; null: not known. */
  readonly keys: ReadonlySet<string> | null;
}

/** Why bytes are not one JSON value that may be used. */
export type Fault = "invalid" | "deep";

/** Of the body that the scanner has before it; a row longer than half of it may be looked at closer. */
const WINDOW_BYTES = 256 * 1024;
const OUTPUT_BYTES = 512 * 1024;
const PAGE_BYTES = 64 * 1024;
/** A fault so near to the end of the window may be that of the window: as long as `\ud83d\ude00` is. */
const EDGE_BYTES = 16;
/** Bytes of a written UUID. */
const ID_BYTES = 36;
/** Which rows had a key is known by their numbers, which must not begin again: what is known does before that. */
const MOST_ROWS = 2 ** 30;
const NEWLINE = 10;
const NOTHING = new Uint8Array(0);
const NO_TYPES: TypeCounts = new Map();

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });

type Calls = Record<
  | "init"
  | "lines"
  | "elements"
  | "addKey"
  | "clearKeys"
  | "lastRow"
  | "normalize"
  | "renew"
  | "useKeys",
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
  | "MOST_KEYS"
  | "MOST_SETS"
  | "NODES"
  | "NODES_BYTES"
  | "WINDOW"
  | "INPUT"
  | "GUARD"
  | "FULL"
  | "VALID"
  | "DEEP";

// What STATE holds.
const OUT = 0;
const ROWS = 1;
const RUNS = 2;
const WHY = 3;
const FOUND = 4;

export class Scanner {
  readonly #calls: Calls;
  readonly #at: Instance["at"];
  readonly #memory: Uint8Array<ArrayBuffer>;
  readonly #state: Uint32Array;
  readonly #words: Uint32Array;
  readonly #runs: Uint32Array;
  readonly #output: number;
  readonly #outputEnd: number;
  readonly #names = new Names();
  readonly #spill = new Spill();
  readonly #encoder = new TextEncoder();
  /** By event type, since `open`. */
  #types = new Map<string, number>();
  #events = true;
  /** What lies in front of events without a time. */
  #nowMs = NaN;
  #window: EventWindow | null = null;
  /** Milliseconds, as `WINDOW` wants them. */
  readonly #times: BigInt64Array;
  /** What keys rows have; null before any were asked for. */
  #set: KeySet | null = null;
  /** Those that are known, for requests of many tables take turns: with types, */
  readonly #typed = new Map<Columns, KeySet>();
  /** and without. */
  readonly #untyped = new Map<Columns | null, KeySet>();
  /** Of all sets. */
  #keyCount = 0;
  #keyBytes = 0;
  #nodeBytes = 0;
  #source: Uint8Array = NOTHING;
  /** What of the source is in the window: [from, to). */
  #from = 0;
  #to = 0;
  /** What was normalized last: [from, to) of a scanner's memory. */
  #textIn: Uint8Array = NOTHING;
  #textFrom = 0;
  #textTo = 0;
  /** See `stoppedAt`. */
  #stoppedAt = 0;

  constructor() {
    const bytes = (at: Instance["at"]) => at.INPUT + WINDOW_BYTES + 2 * at.GUARD + OUTPUT_BYTES;
    const { calls, at, memory } = instantiate(bytes);
    this.#calls = calls;
    this.#at = at;
    this.#memory = memory;
    this.#output = at.INPUT + WINDOW_BYTES + at.GUARD;
    this.#outputEnd = this.#output + OUTPUT_BYTES;
    this.#state = new Uint32Array(memory.buffer, at.STATE, 5);
    this.#runs = new Uint32Array(memory.buffer, at.RUNS);
    this.#times = new BigInt64Array(memory.buffer, at.WINDOW, 2);
    this.#words = new Uint32Array(memory.buffer);
    calls.init(this.#outputEnd);
    this.#begin();
  }

  /** Rows are events from now on. @param nowMs epoch milliseconds, for those without a time or an id. */
  events(nowMs: number, window: EventWindow): void {
    this.#events = true;
    if (nowMs === this.#nowMs && window === this.#window) return;
    this.#nowMs = nowMs;
    this.#window = window;
    const { maxAgeMs, maxSkewMs } = window;
    this.#times[0] = BigInt(
      maxAgeMs === null ? EARLIEST_MS : Math.max(EARLIEST_MS, nowMs - maxAgeMs),
    );
    this.#times[1] = BigInt(
      maxSkewMs === null ? LATEST_MS : Math.min(LATEST_MS, nowMs + maxSkewMs),
    );
    const id = `"id":"${idOf(nowMs)}",`, time = `"timestamp":"${eventTime(nowMs)}",`;
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

  /**
   * Rows are a table's from now on, with keys that are columns; null: none is known yet.
   * @returns what values are held against where the scanner is not sure; null: nothing.
   */
  rowsOf(columns: Columns | null, typeCheck: boolean): Program | null {
    this.#events = false;
    const known = columns !== null && typeCheck
      ? this.#typed.get(columns)
      : this.#untyped.get(columns);
    if (known === undefined) return this.#addSet(columns, typeCheck).program;
    if (known !== this.#set) this.#use(known);
    return known.program;
  }

  /** Where no columns are known: a row may have this key. */
  learn(key: string): void {
    if (this.#set?.columns !== null || this.#addKey(this.#set, key)) return;
    this.#forgetSets();
    this.#addSet(null, false);
  }

  /** A row that was put together elsewhere has this key, one of the columns. */
  had(key: string): void {
    this.#set?.keys.had(key);
  }

  /** Begins a request; `source` must not change until `finish`. */
  open(source: Uint8Array): void {
    this.#source = source;
    const row = this.#calls.lastRow();
    if (row > MOST_ROWS) this.#forgetSets();
    else this.#set?.keys.open(row);
    this.#begin();
    this.#load(0);
  }

  /** Taken from the source since `open`. */
  get rows(): number {
    return this.#state[ROWS]!;
  }

  /**
   * Takes rows from `at` of the source on, behind each of which stands a line end, a comma, or the next one;
   * of those that begin before `until` as many as it likes. Returns where the next one begins: at `at` when
   * this one must be looked at closer.
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

  /**
   * What is wrong with the value that begins at `from` of the source and ends at `until` at the latest; null:
   * it is JSON. `normalized` has it then as ClickHouse takes it: on one line, and with each lone surrogate
   * escape replaced by U+FFFD, as `toWellFormed()` would.
   */
  value(from: number, until: number): Fault | null {
    if (from < this.#from || from >= this.#to) this.#load(from);
    for (;;) {
      const to = Math.min(until, this.#to);
      const base = this.#at.INPUT - this.#from;
      const fault = this.#valueIn(this.#memory, this.#calls, base + from, base + to);
      this.#stoppedAt -= base;
      const cut = to < until && this.#stoppedAt + EDGE_BYTES > to;
      if (!cut) return fault;
      if (from === this.#from) return this.#longValue(from, until);
      this.#load(from);
    }
  }

  /** Where the value ends that `value` was about last, or where it is no JSON any more. */
  get stoppedAt(): number {
    return this.#stoppedAt;
  }

  /** The text that `value` was about last. */
  get normalized(): string {
    return utf8.decode(this.#textIn.subarray(this.#textFrom, this.#textTo));
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

  /** Counts rows of an event type that were put together elsewhere. */
  count(type: string, rows: number): void {
    this.#types.set(type, (this.#types.get(type) ?? 0) + rows);
  }

  /** All rows since `open`. */
  finish(): Gathered {
    this.#countRuns();
    this.#source = this.#textIn = NOTHING;
    const types = this.#types.size > 0 ? this.#types : NO_TYPES;
    const keys = this.#events || !this.#set?.columns ? null : this.#set.keys.seen();
    const body = this.#memory.subarray(this.#output, this.#state[OUT]);
    if (this.#spill.bytes === 0) return { body, lent: true, types, keys };
    this.#spill.add(body);
    return { body: this.#spill.take(), lent: false, types, keys };
  }

  /** In a memory of its own, as large as it needs to be, and gone with the text. */
  #longValue(from: number, until: number): Fault | null {
    for (let bytes = 2 * WINDOW_BYTES;; bytes *= 2) {
      const text = this.#source.subarray(from, Math.min(until, from + bytes));
      const { calls, at, memory } = instantiate(({ INPUT, GUARD }) => INPUT + text.length + GUARD);
      memory.set(text, at.INPUT);
      const fault = this.#valueIn(memory, calls, at.INPUT, at.INPUT + text.length);
      this.#stoppedAt += from - at.INPUT;
      const to = from + text.length;
      if (to === until || this.#stoppedAt + EDGE_BYTES <= to) return fault;
    }
  }

  #valueIn(memory: Uint8Array, { normalize }: Calls, from: number, to: number): Fault | null {
    const found = normalize(from, to);
    const { VALID, DEEP, STATE } = this.#at;
    const view = new DataView(memory.buffer, memory.byteOffset + STATE);
    this.#stoppedAt = view.getUint32(4 * FOUND, true);
    this.#textIn = memory;
    this.#textFrom = from;
    this.#textTo = this.#stoppedAt;
    if (found === VALID) return null;
    return found === DEEP ? "deep" : "invalid";
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
    this.#countRuns();
    const { INPUT, GUARD } = this.#at;
    const source = this.#source;
    const bytes = Math.min(source.length - from, WINDOW_BYTES);
    this.#memory.set(bytes === source.length ? source : source.subarray(from, from + bytes), INPUT);
    this.#memory.fill(0, INPUT + bytes, INPUT + bytes + GUARD);
    this.#from = from;
    this.#to = from + bytes;
  }

  #begin(): void {
    if (this.#types.size > 0) this.#types = new Map();
    this.#spill.empty();
    this.#state[OUT] = this.#output;
    this.#state[ROWS] = this.#state[RUNS] = 0;
  }

  /** Makes room in the scanner's memory. */
  #drain(): void {
    this.#countRuns();
    this.#spill.add(this.#memory.subarray(this.#output, this.#state[OUT]));
    this.#state[OUT] = this.#output;
  }

  #countRuns(): void {
    const runs = this.#runs;
    for (let run = 0, at = 0; run < this.#state[RUNS]!; run++) {
      const from = runs[at++]!, bytes = runs[at++]!, rows = runs[at++]!;
      const type = bytes > LONGEST_TYPE_BYTES
        ? OTHER_TYPE
        : this.#names.text(this.#memory, from, from + bytes);
      this.count(type, rows);
    }
    this.#state[RUNS] = 0;
  }

  #use(set: KeySet): void {
    this.#set = set;
    this.#calls.useKeys(set.number, set.nodes);
    set.keys.open(this.#calls.lastRow());
  }

  /** Makes the keys of columns known, and uses them; null: any, which `learn` adds. */
  #addSet(columns: Columns | null, typeCheck: boolean): KeySet {
    const program = columns !== null && typeCheck ? programOf(columns) : null;
    if (!this.#hasRoom(columns, program)) this.#forgetSets();
    const nodes = this.#at.NODES + this.#nodeBytes;
    const number = this.#typed.size + this.#untyped.size;
    const set = { columns, program, number, nodes, keys: new Keys(this.#words) };
    if (columns !== null && typeCheck) this.#typed.set(columns, set);
    else this.#untyped.set(columns, set);
    if (program !== null) this.#memory.set(program.bytes, nodes);
    this.#nodeBytes += program?.bytes.length ?? 0;
    this.#use(set);
    for (const name of columns?.names ?? []) {
      const node = program?.nodes.get(name);
      if (!this.#addKey(set, name, node === undefined ? 0 : nodes + node)) break;
    }
    return set;
  }

  /** Beside the sets that are known. */
  #hasRoom(columns: Columns | null, program: Program | null): boolean {
    const { MOST_SETS, MOST_KEYS, KEYS_BYTES, NODES_BYTES } = this.#at;
    let keyBytes = this.#keyBytes;
    for (const name of columns?.names ?? []) keyBytes += Buffer.byteLength(name);
    return this.#typed.size + this.#untyped.size < MOST_SETS &&
      this.#keyCount + (columns?.names.size ?? 0) <= MOST_KEYS &&
      keyBytes <= KEYS_BYTES &&
      this.#nodeBytes + (program?.bytes.length ?? 0) <= NODES_BYTES;
  }

  /** Whether there was room for it. */
  #addKey({ keys }: KeySet, key: string, node = 0): boolean {
    const { KEYS, KEYS_BYTES } = this.#at;
    const room = this.#memory.subarray(KEYS + this.#keyBytes, KEYS + KEYS_BYTES);
    const { read, written } = this.#encoder.encodeInto(key, room);
    if (read < key.length) return false;
    const slot = this.#calls.addKey(room.byteOffset, written, node);
    if (slot === 0) return false;
    keys.add(key, slot);
    this.#keyCount++;
    this.#keyBytes += written;
    return true;
  }

  /** They are made known again as they are asked for. */
  #forgetSets(): void {
    this.#calls.clearKeys();
    this.#set = null;
    this.#typed.clear();
    this.#untyped.clear();
    this.#keyCount = this.#keyBytes = this.#nodeBytes = 0;
  }
}

/** The columns of a table, as the scanner has them. */
interface KeySet {
  /** Null: none is known. */
  readonly columns: Columns | null;
  /** Null: values are not looked at. */
  readonly program: Program | null;
  readonly number: number;
  /** Where the program begins. */
  readonly nodes: number;
  readonly keys: Keys;
}

/** In a key's slot: the row that had it last. */
const ROW_AT = 8;

/**
 * Which of the known keys the rows of a request have. Each is looked at once a request, whatever the
 * number of its rows, and nothing is made where they are those of the request before.
 */
class Keys {
  readonly #words: Uint32Array;
  /** By key, where in `#words` its row is; and the same in the order of the keys. */
  readonly #places = new Map<string, number>();
  readonly #order: number[] = [];
  /** Of `seen`, in that order. */
  readonly #last: boolean[] = [];
  #seen: ReadonlySet<string> = new Set();
  /** The last row of the request before. */
  #opened = 0;
  /** Those for which there was no slot. */
  readonly #others = new Set<string>();

  /** @param words the scanner's memory. */
  constructor(words: Uint32Array) {
    this.#words = words;
  }

  add(key: string, slot: number): void {
    if (!this.#places.has(key)) this.#order.push((slot + ROW_AT) / 4);
    this.#places.set(key, (slot + ROW_AT) / 4);
  }

  /** @param row the last one that was counted. */
  open(row: number): void {
    this.#opened = row;
    this.#others.clear();
  }

  had(key: string): void {
    const place = this.#places.get(key);
    if (place === undefined) this.#others.add(key);
    else this.#words[place] = this.#opened + 1;
  }

  /** Since `open`. It never changes. */
  seen(): ReadonlySet<string> {
    let same = true;
    for (let index = 0; index < this.#order.length; index++) {
      const had = this.#words[this.#order[index]!]! > this.#opened;
      if (this.#last[index] === had) continue;
      this.#last[index] = had;
      same = false;
    }
    if (!same) {
      this.#seen = new Set([...this.#places.keys()].filter((_, at) => this.#last[at]));
    }
    return this.#others.size === 0 ? this.#seen : this.#seen.union(this.#others);
  }
}

type Instance = {
  readonly calls: Calls;
  readonly at: Readonly<Record<Address, number>>;
  readonly memory: Uint8Array<ArrayBuffer>;
};

/** Compiled when it is needed first. */
let compiled: WebAssembly.Module | null = null;

/** @param bytesOf the memory that is wanted, by its layout. */
function instantiate(bytesOf: (at: Instance["at"]) => number): Instance {
  compiled ??= new WebAssembly.Module(Buffer.from(SCANNER_WASM, "base64"));
  const { exports } = new WebAssembly.Instance(compiled, {
    host: {
      refill: () => crypto.getRandomValues(memory.subarray(at.POOL, at.POOL + at.POOL_BYTES)),
    },
  });
  const addresses = Object.entries(exports).flatMap(([name, value]) =>
    value instanceof WebAssembly.Global ? [[name, value.value as number]] : []
  );
  const at: Instance["at"] = Object.fromEntries(addresses);
  const wasm = exports["memory"] as WebAssembly.Memory;
  wasm.grow(Math.max(0, Math.ceil((bytesOf(at) - wasm.buffer.byteLength) / PAGE_BYTES)));
  const memory = new Uint8Array(wasm.buffer as ArrayBuffer);
  return { calls: exports as unknown as Calls, at, memory };
}

/**
 * A UUIDv7 (RFC 9562) of `nowMs` (epoch milliseconds), zero where it is random, which is the scanner's to
 * fill in. Time first, so that ids of one moment lie together and compress well.
 */
function idOf(nowMs: number): string {
  const time = nowMs.toString(16).padStart(12, "0");
  return `${time.slice(0, 8)}-${time.slice(8)}-7000-8000-000000000000`;
}

const SLOTS = 1024;
/** Longer names are not kept; they are made afresh each time. */
const LONGEST = 64;

interface Slot {
  readonly bytes: Uint8Array;
  readonly text: string;
}

/**
 * Text for names that come again and again, without making a string per row. A name is found by its
 * bytes in a table of fixed size; a rare one just pushes another out, so whatever clients send, memory
 * stays bounded.
 */
class Names {
  readonly #slots: (Slot | undefined)[] = new Array(SLOTS).fill(undefined);
  readonly #decoder = new TextDecoder();

  /** The text of the UTF-8 bytes in [from, to). */
  text(bytes: Uint8Array, from: number, to: number): string {
    if (to - from > LONGEST) return this.#decoder.decode(bytes.subarray(from, to));
    let hash = to - from;
    for (let i = from; i < to; i++) hash = (Math.imul(hash, 31) + bytes[i]!) | 0;
    const index = (hash ^ (hash >>> 13)) & (SLOTS - 1);
    const slot = this.#slots[index];
    if (slot !== undefined && same(slot.bytes, bytes, from, to)) return slot.text;
    const name = bytes.slice(from, to);
    const text = this.#decoder.decode(name);
    this.#slots[index] = { bytes: name, text };
    return text;
  }
}

function same(name: Uint8Array, bytes: Uint8Array, from: number, to: number): boolean {
  if (name.length !== to - from) return false;
  for (let i = 0; i < name.length; i++) if (name[i] !== bytes[from + i]) return false;
  return true;
}

/** Bytes that outgrew the place where they were gathered: one array, however many pieces come. */
class Spill {
  #room = NOTHING;
  #used = 0;

  get bytes(): number {
    return this.#used;
  }

  empty(): void {
    this.#room = NOTHING;
    this.#used = 0;
  }

  /** Copies them. */
  add(bytes: Uint8Array): void {
    const needed = this.#used + bytes.length;
    if (needed > this.#room.length) {
      const larger = new Uint8Array(Math.max(needed, this.#room.length * 2));
      larger.set(this.#room.subarray(0, this.#used));
      this.#room = larger;
    }
    this.#room.set(bytes, this.#used);
    this.#used = needed;
  }

  /** All since it was empty, which it is then; they hold hardly more memory than their length. */
  take(): Uint8Array {
    const room = this.#room, used = this.#used;
    this.empty();
    return used * 8 >= room.length * 7 ? room.subarray(0, used) : room.slice(0, used);
  }
}
