/** What lies where in the scanner's memory: addresses, in bytes. No allocator and no static data. */

/**
 * What JavaScript reads, u32 each: where the output ends, rows taken, runs of types, why it stopped, and what
 * `normalize` found.
 */
export const STATE: u32 = 64;
/** Times of events that are taken, i64 each of milliseconds: the earliest and the latest. */
export const WINDOW: u32 = 96;
/** What is put in front of a row: u32 length, then the bytes; in this order for a row with neither id nor
 * timestamp, with a timestamp, with an id, with both. */
export const FRONTS: u32 = 1024;
export const FRONT_BYTES: u32 = 128;
/** Where the id begins in the bytes of a front: behind `{"id":"`. */
export const ID_AT: u32 = 7;
/** Random bytes for ids. */
export const POOL: u32 = 2048;
export const POOL_BYTES: u32 = 8000;
/** Two hexadecimal digits for each byte. */
export const HEX: u32 = 10240;
/** Rows of the same type that follow each other: address and length of the type, number of rows. */
export const RUNS: u32 = 11264;
export const RUN_BYTES: u32 = 12;
export const MOST_RUNS: u32 = 1024;
/**
 * Sets of keys, each of the columns of a table. What stands where a slot has that of the key behind it is the slot
 * of the first key of its last row.
 */
export const SETS: u32 = 24576;
export const SET_BYTES: u32 = 16;
export const MOST_SETS: u32 = 1024;
/**
 * Names of columns, those of a set side by side: address, length, the row that had it last, the slot of the key
 * behind it there, the node of its type (0: none is known), its set.
 */
export const SLOTS: u32 = 40960;
export const SLOT_BYTES: u32 = 24;
export const MOST_KEYS: u32 = 8192;
/** Their slots by hash, of all sets together: addresses. */
export const INDEX: u32 = 237568;
export const INDEX_COUNT: u32 = 16384;
/** Their bytes. */
export const KEYS: u32 = 303104;
export const KEYS_BYTES: u32 = 262144;
/** Types of columns. */
export const NODES: u32 = 565248;
export const NODES_BYTES: u32 = 262144;
/** What is put out in other words, of one row: from, to and length, u32 each, then the bytes. */
export const PATCHES: u32 = 827392;
export const PATCH_BYTES: u32 = 40;
export const MOST_PATCHES: u32 = 64;
export const INPUT: u32 = 829952;
/** Of zeros behind the input; of anything behind the output. */
export const GUARD: u32 = 16;

/** Why the scanner stopped: it came to where it was to stop, a row is to be looked at closer, or there is no room. */
export const DONE: u32 = 0;
export const CLOSER: u32 = 1;
export const FULL: u32 = 2;
