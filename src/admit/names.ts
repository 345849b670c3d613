/**
 * Text for names that come again and again (event types, column names), without making a string per
 * row. A name is found by its bytes in a table of fixed size; a rare one just pushes another out, so
 * whatever clients send, memory stays bounded.
 */

const SLOTS = 1024;
/** Longer names are not kept; they are made afresh each time. */
const LONGEST = 64;

interface Slot {
  readonly bytes: Uint8Array;
  readonly text: string;
}

export class Names {
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
