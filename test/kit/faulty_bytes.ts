/** One file's bytes on a disk that loses things: what programs see, and what a power cut leaves. */

/** Uniform in [0, 1), repeatable. */
export type Chance = () => number;

/** mulberry32. */
export function seeded(seed: number): Chance {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

export class DiskFile {
  /** In no folder any more; open files still write to it. */
  unlinked = false;
  #safe: Uint8Array;
  /** Up to here the two images agree, whatever happens. */
  #agreed: number;
  /** The shortest it was since a sync began. */
  #shortest = Infinity;
  /** Bytes that a failed sync lost: programs see them, no later sync brings them to the disk. */
  #lost: [start: number, end: number][] = [];

  constructor(public bytes: Uint8Array = new Uint8Array(0), safe: Uint8Array = bytes) {
    this.#safe = safe;
    this.#agreed = safe === bytes ? bytes.length : 0;
  }

  append(data: Uint8Array): void {
    const longer = new Uint8Array(this.bytes.length + data.length);
    longer.set(this.bytes);
    longer.set(data, this.bytes.length);
    this.bytes = longer;
  }

  /** Longer than it is: filled with zeros. */
  truncate(length: number): void {
    const changed = new Uint8Array(length);
    changed.set(this.bytes.subarray(0, length));
    this.#agreed = Math.min(this.#agreed, length, this.bytes.length);
    this.#shortest = Math.min(this.#shortest, length);
    this.#lost = this.#lost.map(([start, end]) => [start, Math.min(end, length)]);
    this.bytes = changed;
  }

  /** What is there at the call will be safe once the answer is called. */
  beginSync(): () => void {
    const image = this.#written();
    this.#shortest = Infinity;
    return () => {
      this.#safe = image;
      this.#agreed = Math.min(image.length, this.#shortest);
    };
  }

  /** The kernel could not write, says so once, and forgets: the bytes may never get there. */
  failSync(chance: Chance): void {
    if (chance() < 0.5) this.#lost.push([this.#agreed, this.bytes.length]);
  }

  /** What a power cut leaves. */
  afterPowerCut(chance: Chance): Uint8Array {
    const written = this.#written();
    const from = Math.min(this.#agreed, written.length);
    const within = () => from + Math.floor(chance() * (written.length - from + 1));
    switch (Math.floor(chance() * 4)) {
      case 0:
        return this.#safe.slice();
      case 1:
        return written;
      case 2:
        return written.subarray(0, within());
      default:
        return written.fill(0, ...[within(), within()].sort((a, b) => a - b));
    }
  }

  #written(): Uint8Array {
    const image = this.bytes.slice();
    for (const [start, end] of this.#lost) image.fill(0, start, Math.max(start, end));
    return image;
  }
}
