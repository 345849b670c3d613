/** Rows of any other table: every key is one that is known, and stands there once. */

import {
  BRACE_CLOSE,
  BRACE_OPEN,
  byte,
  COLON,
  COMMA,
  NO,
  QUOTE,
  skipBlanks,
  skipRun,
  skipValue,
} from "./json";
import {
  INDEX,
  INDEX_COUNT,
  MOST_KEYS,
  MOST_SETS,
  SET_BYTES,
  SETS,
  SLOT_BYTES,
  SLOTS,
} from "./addresses";
import { skipTyped, typesFrom } from "./typed_bytes";

/** Where the set is whose keys rows have. */
let set: u32 = SETS;
/** Of all sets. */
let keys: u32 = 0;
/** Of the row that is looked at; a key that has it already is repeated. */
let row: u32 = 0;

/** Rows have keys of this set from now on, of types whose nodes are laid out from `nodes` on. */
export function useKeys(number: u32, nodes: u32): void {
  set = SETS + number * SET_BYTES;
  typesFrom(nodes);
}

/** Forgets the keys of all sets. */
export function clearKeys(): void {
  memory.fill(SETS, 0, MOST_SETS * SET_BYTES);
  memory.fill(INDEX, 0, INDEX_COUNT * 4);
  keys = 0;
  row = 0;
}

/** The number of the row that was looked at last. */
export function lastRow(): u32 {
  return row;
}

/**
 * Makes the bytes at `at` a key of the set, with values of the type at `node` (0: of any). They must stay there.
 * @returns its slot; 0 where there are too many.
 */
export function addKey(at: u32, length: u32, node: u32): u32 {
  if (keys == MOST_KEYS) return 0;
  const entry = entryOf(at, length);
  let slot = load<u32>(entry);
  if (slot == 0) {
    slot = SLOTS + keys++ * SLOT_BYTES;
    store<u32>(entry, slot);
  }
  store<u32>(slot, set, 20);
  store<u32>(slot, at);
  store<u32>(slot, length, 4);
  store<u64>(slot, 0, 8);
  store<u32>(slot, node, 16);
  return slot;
}

export function skipRow(at: u32): u32 {
  if (byte(at) != BRACE_OPEN) return NO;
  at = skipBlanks(at + 1);
  if (byte(at) == BRACE_CLOSE) return at + 1;
  row++;
  let before = set;
  while (byte(at) == QUOTE) {
    const from = at + 1;
    // Most rows have the keys of the row before in the same order.
    let slot = load<u32>(before, 12);
    const length = load<u32>(slot, 4);
    if (slot != 0 && byte(from + length) == QUOTE && same(load<u32>(slot), from, length)) {
      at = from + length;
    } else {
      at = skipRun(from);
      if (byte(at) != QUOTE) return NO;
      slot = load<u32>(entryOf(from, at - from));
      if (slot == 0) return NO;
      store<u32>(before, slot, 12);
    }
    if (load<u32>(slot, 8) == row) return NO;
    store<u32>(slot, row, 8);
    before = slot;
    at = skipBlanks(at + 1);
    if (byte(at) != COLON) return NO;
    const node = load<u32>(slot, 16);
    at = skipBlanks(at + 1);
    at = node == 0 ? skipValue(at, 1) : skipTyped(node, at, 1);
    if (at == NO) return NO;
    at = skipBlanks(at);
    if (byte(at) == BRACE_CLOSE) return at + 1;
    if (byte(at) != COMMA) return NO;
    at = skipBlanks(at + 1);
  }
  return NO;
}

/** Where the index has a key of the set, or would have it. Keys take half of it at most, so there always is a place. */
function entryOf(at: u32, length: u32): u32 {
  let index = hash(at, length) & (INDEX_COUNT - 1);
  while (true) {
    const entry = INDEX + index * 4;
    const slot = load<u32>(entry);
    if (
      slot == 0 ||
      (load<u32>(slot, 20) == set && load<u32>(slot, 4) == length &&
        same(load<u32>(slot), at, length))
    ) return entry;
    index = (index + 1) & (INDEX_COUNT - 1);
  }
  return NO;
}

/** FNV-1a, which begins with the set. */
function hash(at: u32, length: u32): u32 {
  let hash: u32 = 0x811c9dc5 ^ set;
  for (const end = at + length; at < end; at++) hash = (hash ^ byte(at)) * 0x01000193;
  return hash ^ (hash >> 15);
}

/** Whether as many bytes are the same in both places; up to seven behind them are read. */
export function same(one: u32, other: u32, length: u32): bool {
  for (; length >= 8; one += 8, other += 8, length -= 8) {
    if (load<u64>(one) != load<u64>(other)) return false;
  }
  return length == 0 || (load<u64>(one) ^ load<u64>(other)) << (64 - length * 8) == 0;
}
