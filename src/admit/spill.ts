/** Bytes that outgrew the place where they were gathered: one array, however many pieces come. */

const NOTHING = new Uint8Array(0);

export class Spill {
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
