/**
 * How many names of requests and messages are remembered: keys of HTTP, and ids of each source. All share one
 * bound. Where it is reached, what has most of it forgets its oldest: names that keep to an even part are
 * all remembered, however many others come.
 */

/** Remembered at most, all together. */
const MOST_NAMES = 100_000;
/** And so many bytes, each name with about what it costs beside its text. */
const MOST_BYTES = 16 * 1024 * 1024;

/** Names of one kind: of requests, or of the messages of one source. */
export interface NamesOfAKind {
  readonly size: number;
  readonly bytes: number;
  /** At least one, where there is one. */
  forgetOldest(): void;
}

export class NameBudget {
  readonly #kinds = new Set<NamesOfAKind>();

  /** @param most for tests. */
  constructor(readonly most = { names: MOST_NAMES, bytes: MOST_BYTES }) {}

  /** More of this kind are remembered; once this returns there are no more than may be. */
  fit(kind: NamesOfAKind): void {
    this.#kinds.add(kind);
    while (this.#isTooMuch()) this.#largest().forgetOldest();
  }

  #isTooMuch(): boolean {
    let [names, bytes] = [0, 0];
    for (const kind of this.#kinds) {
      names += kind.size;
      bytes += kind.bytes;
    }
    return names > this.most.names || bytes > this.most.bytes;
  }

  #largest(): NamesOfAKind {
    const part = ({ size, bytes }: NamesOfAKind) =>
      Math.max(size / this.most.names, bytes / this.most.bytes);
    return [...this.#kinds].reduce((one, other) => part(other) > part(one) ? other : one);
  }
}
