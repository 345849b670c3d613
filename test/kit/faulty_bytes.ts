/** One file's bytes on a disk that loses things: what programs see, and what a power cut leaves. */

/** Uniform in [0, 1), repeatable. */
export type Chance = () => number;

/** Of a disk: written whole or not at all. Small, as the rows of tests are. */
const SECTOR_BYTES = 64;

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

function laidOver(bytes: Uint8Array, part: Uint8Array, at: number): Uint8Array {
  const all = new Uint8Array(Math.max(bytes.length, at + part.length));
  all.set(bytes);
  all.set(part, at);
  return all;
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
    this.write(data, this.bytes.length);
  }

  /** Over what is there from `at` on; a gap in front of it is zeros. */
  write(data: Uint8Array, at: number): void {
    const end = at + data.length;
    const changed = new Uint8Array(Math.max(this.bytes.length, end));
    changed.set(this.bytes);
    changed.set(data, at);
    this.bytes = changed;
    this.#agreed = Math.min(this.#agreed, at);
    this.#shortest = Math.min(this.#shortest, at);
    // What is written again may get there after all.
    this.#lost = this.#lost.flatMap(([from, to]): [number, number][] => [
      [from, Math.min(to, at)],
      [Math.max(from, end), to],
    ]).filter(([from, to]) => from < to);
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

  /** What is there at the call will be safe once the answer is called; or of it only what lies in a range. */
  beginSync(start = 0, end = Infinity): () => void {
    const written = this.#written();
    this.#shortest = Infinity;
    return () => {
      const all = start === 0 && end >= written.length;
      const image = all ? written : this.#safe.slice();
      this.#safe = all ? written : laidOver(image, written.subarray(start, end), start);
      // What lies before the range may differ.
      const agreed = this.#agreed < start ? this.#agreed : Math.min(end, this.#safe.length);
      this.#agreed = Math.min(agreed, this.#shortest);
    };
  }

  /** The kernel could not write, says so once, and forgets: the bytes may never get there. */
  failSync(chance: Chance): void {
    if (chance() < 0.5) this.#lost.push([this.#agreed, this.bytes.length]);
  }

  /**
   * What a power cut leaves of what was not synced: nothing, all, a beginning, all with a hole, or each
   * sector as chance has it. A place that was written over is old or new, never empty.
   */
  afterPowerCut(chance: Chance): Uint8Array {
    const written = this.#written();
    const from = Math.min(this.#agreed, written.length);
    const within = () => from + Math.floor(chance() * (written.length - from + 1));
    switch (Math.floor(chance() * 5)) {
      case 0:
        return this.#safe.slice();
      case 1:
        return written;
      case 2: {
        const at = within();
        if (this.#safe.length > written.length) return written.subarray(0, at);
        return this.#old(written, at, written.length).subarray(0, Math.max(at, this.#safe.length));
      }
      case 3: {
        const [start = 0, end = 0] = [within(), within()].sort((a, b) => a - b);
        return this.#old(written, start, end);
      }
      default:
        for (let at = from; at < written.length;) {
          const end = Math.min(written.length, (Math.floor(at / SECTOR_BYTES) + 1) * SECTOR_BYTES);
          if (chance() < 0.5) this.#old(written, at, end);
          at = end;
        }
        return written;
    }
  }

  /** A range of it as it was before; zeros where there was nothing. */
  #old(written: Uint8Array, start: number, end: number): Uint8Array {
    written.fill(0, start, end);
    written.set(
      this.#safe.subarray(start, Math.max(start, Math.min(end, this.#safe.length))),
      start,
    );
    return written;
  }

  /** What a failed sync lost is what was there before, or zeros. */
  #written(): Uint8Array {
    const image = this.bytes.slice();
    for (const [start, end] of this.#lost) this.#old(image, start, Math.min(end, image.length));
    return image;
  }
}
