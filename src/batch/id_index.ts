/**
 * Which chunk a message's id came in, for a hundred thousand ids in two numbers each. As texts of their own, in
 * a map, they were most of what a collector's heap held, and what the runtime leaves lying until it looks for
 * garbage is a multiple of that. Their texts stand once, as those of their chunk (`KnownIds.ids`), and are
 * read where an id is asked for whose hash is known.
 *
 * An open hash table: a hash and the number of a chunk in turn, 0 for none. Chunks that are forgotten leave
 * theirs behind until the table is full, and is made anew of those that live.
 */

const LEAST_SLOTS = 1024;
/** Fuller than this, one looks too long for a free place. */
const FULL = 0.7;
const LARGEST_NUMBER = 2 ** 32 - 1;

export class IdIndex<C> {
  /** By number, the oldest first. */
  #chunks = new Map<number, C>();
  #slots = new Uint32Array(2 * LEAST_SLOTS);
  /** Of the slots, also by chunks that are forgotten. */
  #used = 0;
  #next = 1;

  /** @param idsOf the ids of a chunk that was added. @param last for tests: the largest number. */
  constructor(readonly idsOf: (chunk: C) => readonly string[], readonly last = LARGEST_NUMBER) {}

  /** Of memory, beside the chunks. */
  get bytes(): number {
    return this.#slots.byteLength;
  }

  /** The oldest first. @returns numbers by which they can be forgotten. */
  chunks(): IterableIterator<[number: number, chunk: C]> {
    return this.#chunks.entries();
  }

  /** @param ids of the chunk. */
  add(chunk: C, ids: readonly string[]): void {
    if (this.#next > this.last) this.#number();
    const number = this.#next++;
    this.#chunks.set(number, chunk);
    this.#room(ids.length);
    for (const id of ids) this.#put(hashOf(id), number);
  }

  forget(number: number): void {
    this.#chunks.delete(number);
  }

  clear(): void {
    this.#chunks.clear();
    this.#slots = new Uint32Array(2 * LEAST_SLOTS);
    this.#used = 0;
    this.#next = 1;
  }

  /** For each id that is known, the newest chunk that has it. */
  find(ids: readonly string[]): Map<string, C> {
    const found = new Map<string, C>();
    const read = new Map<number, ReadonlySet<string>>();
    const has = (number: number, id: string) => {
      let all = read.get(number);
      if (all === undefined) {
        read.set(number, all = new Set(this.idsOf(this.#chunks.get(number)!)));
      }
      return all.has(id);
    };
    for (const id of ids) {
      const candidates = this.#numbersOf(hashOf(id)).sort((a, b) => b - a);
      const number = candidates.find((number) => has(number, id));
      if (number !== undefined) found.set(id, this.#chunks.get(number)!);
    }
    return found;
  }

  #numbersOf(hash: number): number[] {
    const slots = this.#slots;
    const mask = slots.length / 2 - 1;
    const numbers: number[] = [];
    for (let at = hash & mask; slots[2 * at + 1] !== 0; at = (at + 1) & mask) {
      const number = slots[2 * at + 1]!;
      if (slots[2 * at] === hash && this.#chunks.has(number)) numbers.push(number);
    }
    return numbers;
  }

  #put(hash: number, number: number): void {
    const slots = this.#slots;
    const mask = slots.length / 2 - 1;
    let at = hash & mask;
    while (slots[2 * at + 1] !== 0) at = (at + 1) & mask;
    slots[2 * at] = hash;
    slots[2 * at + 1] = number;
    this.#used++;
  }

  /** For so many more. */
  #room(more: number): void {
    if (this.#used + more <= this.#slots.length / 2 * FULL) return;
    const before = this.#slots;
    let live = 0;
    for (let at = 1; at < before.length; at += 2) if (this.#chunks.has(before[at]!)) live++;
    let count = LEAST_SLOTS;
    // Half of it is for those that come before the next time.
    while (count * FULL < 2 * (live + more)) count *= 2;
    this.#slots = new Uint32Array(2 * count);
    this.#used = 0;
    for (let at = 0; at < before.length; at += 2) {
      if (this.#chunks.has(before[at + 1]!)) this.#put(before[at]!, before[at + 1]!);
    }
  }

  /** There are no more numbers: they are given anew. */
  #number(): void {
    const chunks = [...this.#chunks.values()];
    this.clear();
    for (const chunk of chunks) this.add(chunk, this.idsOf(chunk));
  }
}

/** FNV-1a of 32 bits, mixed once more: the low bits say where one begins to look. */
function hashOf(id: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < id.length; at++) hash = Math.imul(hash ^ id.charCodeAt(at), 0x01000193);
  return Math.imul(hash ^ hash >>> 15, 0x2c1b3c6d) >>> 0;
}
