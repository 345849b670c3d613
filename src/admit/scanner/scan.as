/**
 * The rows of a body, looked at byte by byte: which of them can go to ClickHouse as they stand; and the
 * lines that are sent for these. AssemblyScript, compiled to WebAssembly by `npm run scanner`, because
 * most of the work for a request of many rows is here: the same in JavaScript took 2.5 to 4 times as
 * long, and with it a request of 100 events half as long again.
 *
 * Nothing here finds a row wrong: what is not known to be right is left to the closer look, on text.
 */

import { ID, seen, skipEvent, TIME, typeFrom, typeTo } from "./event_bytes";
import {
  BRACE_OPEN,
  BRACKET_CLOSE,
  BRACKET_OPEN,
  byte,
  COMMA,
  NEWLINE,
  NO,
  RECORD,
  RETURN,
  skipBlanks,
  skipSpace,
} from "./json";
import {
  CLOSER,
  DONE,
  FRONT_BYTES,
  FRONTS,
  FULL,
  GUARD,
  HEX,
  ID_AT,
  MOST_RUNS,
  PATCH_BYTES,
  PATCHES,
  POOL,
  POOL_BYTES,
  RUN_BYTES,
  RUNS,
  STATE,
} from "./addresses";
import { same, skipRow } from "./row_bytes";
import { beginPatches, patches } from "./typed_bytes";

export * from "./addresses";
export { DEEP, DEEPEST, normalize, skipValue, VALID } from "./json";
export { addKey, clearKeys, lastRow, useKeys } from "./row_bytes";

/** Fills the pool. */
// @ts-ignore: decorator
@external("host", "refill")
declare function refill(): void;

/** Random bytes of one id. */
const RANDOM_BYTES: u32 = 10;

/** Behind the room for the output. */
let limit: u32 = 0;
let out: u32 = 0;
let rows: u32 = 0;
let runs: u32 = 0;
let poolUsed: u32 = POOL_BYTES;

/** To be called once. */
export function init(outputEnd: u32): void {
  limit = outputEnd;
  for (let value: u32 = 0; value < 256; value++) {
    store<u8>(HEX + value * 2, digit(value >> 4));
    store<u8>(HEX + value * 2, digit(value & 15), 1);
  }
}

function digit(value: u32): u32 {
  return value < 10 ? value + 48 : value + 87;
}

/**
 * Takes rows from `at` on, the first of them in any case; not beyond `until`. Behind a row stands a line
 * end, a comma, or the beginning of the next one.
 * @param end of the input. @param last whether the body ends there too.
 * @returns where the next row begins; STATE tells why it is not taken.
 */
export function lines(events: bool, at: u32, until: u32, end: u32, last: bool): u32 {
  resume();
  let why = DONE;
  while (at < until) {
    beginPatches();
    const to = events ? skipEvent(at) : skipRow(at);
    if (to == NO) {
      why = CLOSER;
      break;
    }
    let stop = to;
    if (byte(stop) != NEWLINE) {
      stop = skipBlanks(stop);
      if (byte(stop) == RETURN) stop++;
      if (stop == end ? !last : byte(stop) != NEWLINE) {
        stop = skipSeparator(stop, end, last);
        if (stop == NO) {
          why = CLOSER;
          break;
        }
      }
    }
    if (!take(events, at, to)) {
      why = FULL;
      break;
    }
    at = skipSpace(stop);
  }
  return suspend(at, why);
}

/**
 * Takes elements of an array likewise.
 * @param at where an element begins.
 * @returns where the separator behind the last one taken is, `at` if that is none.
 */
export function elements(events: bool, at: u32, until: u32): u32 {
  resume();
  let why = DONE;
  let behind = at;
  while (at < until) {
    beginPatches();
    const to = events ? skipEvent(at) : skipRow(at);
    const separator = to == NO ? NO : skipSpace(to);
    if (to == NO || (byte(separator) != COMMA && byte(separator) != BRACKET_CLOSE)) {
      why = CLOSER;
      break;
    }
    if (!take(events, at, to)) {
      why = FULL;
      break;
    }
    behind = separator;
    if (byte(separator) == BRACKET_CLOSE) break;
    at = skipSpace(separator + 1);
  }
  return suspend(behind, why);
}

/**
 * After what stands between two values that are no lines of their own; NO where something else follows, or
 * where the window ends.
 */
function skipSeparator(at: u32, end: u32, last: bool): u32 {
  const comma = byte(at) == COMMA;
  if (comma) at = skipSpace(at + 1);
  if (at == end) return last ? at : NO;
  const next = byte(at);
  return comma || next == BRACE_OPEN || next == BRACKET_OPEN || next == RECORD ? at : NO;
}

function resume(): void {
  out = load<u32>(STATE);
  rows = load<u32>(STATE, 4);
  runs = load<u32>(STATE, 8);
}

function suspend(at: u32, why: u32): u32 {
  store<u32>(STATE, out);
  store<u32>(STATE, rows, 4);
  store<u32>(STATE, runs, 8);
  store<u32>(STATE, why, 12);
  return at;
}

/** Puts the row in [at, to) out, with what it lacks in front; false where there is no room. */
// @ts-ignore: decorator
@inline
function take(events: bool, at: u32, to: u32): bool {
  if (out + (to - at) + FRONT_BYTES + GUARD + patches * PATCH_BYTES > limit) return false;
  if (events) {
    if (!count()) return false;
    const front = FRONTS + (seen & (TIME | ID)) / TIME * FRONT_BYTES;
    const length = load<u32>(front);
    if (length > 0) {
      copy(out, front + 4, length);
      if ((seen & ID) == 0) renew(out + ID_AT);
      out += length;
      // Its brace stands in front.
      at++;
    }
  }
  for (let index: u32 = 0; index < patches; index++) {
    const patch = PATCHES + index * PATCH_BYTES;
    const from = load<u32>(patch), bytes = load<u32>(patch, 8);
    copy(out, at, from - at);
    out += from - at;
    copy(out, patch + 12, bytes);
    out += bytes;
    at = load<u32>(patch, 4);
  }
  copy(out, at, to - at);
  out += to - at;
  store<u8>(out++, NEWLINE);
  rows++;
  return true;
}

/** Counts the type of the event; false where there is no room for another run. */
// @ts-ignore: decorator
@inline
function count(): bool {
  const length = typeTo - typeFrom;
  let run = RUNS + (runs - 1) * RUN_BYTES;
  if (
    runs == 0 || load<u32>(run, 4) != length || !same(load<u32>(run), typeFrom, length)
  ) {
    if (runs == MOST_RUNS) return false;
    run = RUNS + runs++ * RUN_BYTES;
    store<u32>(run, typeFrom);
    store<u32>(run, length, 4);
    store<u32>(run, 0, 8);
  }
  store<u32>(run, load<u32>(run, 8) + 1, 8);
  return true;
}

/** Up to GUARD bytes more than asked for, which the next copy overwrites: calls into the runtime cost more. */
// @ts-ignore: decorator
@inline
function copy(to: u32, from: u32, length: u32): void {
  for (const end = from + length; from < end; from += 16, to += 16) {
    store<u64>(to, load<u64>(from));
    store<u64>(to, load<u64>(from, 8), 8);
  }
}

/** Makes another id of the same moment out of the UUIDv7 at `at`: all that is random in it. */
export function renew(at: u32): void {
  if (poolUsed + RANDOM_BYTES > POOL_BYTES) {
    refill();
    poolUsed = 0;
  }
  const random = POOL + poolUsed;
  poolUsed += RANDOM_BYTES;
  put(at + 14, 0x70 | (byte(random) & 15));
  put(at + 16, byte(random + 1));
  put(at + 19, 0x80 | (byte(random + 2) & 63));
  put(at + 21, byte(random + 3));
  for (let pair: u32 = 0; pair < 6; pair++) put(at + 24 + pair * 2, byte(random + 4 + pair));
}

// @ts-ignore: decorator
@inline
function put(at: u32, value: u32): void {
  store<u16>(at, load<u16>(HEX + value * 2));
}
