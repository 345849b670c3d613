/** Work that is going on, so that the end can wait for it. */

export class Underway {
  readonly #works = new Set<Promise<unknown>>();

  /** @returns what the work returns. */
  async add<T>(work: Promise<T>): Promise<T> {
    this.#works.add(work);
    try {
      return await work;
    } finally {
      this.#works.delete(work);
    }
  }

  /** Resolves when nothing is going on; what begins meanwhile is waited for too. Never rejects. */
  async idle(): Promise<void> {
    while (this.#works.size > 0) await Promise.allSettled(this.#works);
  }
}

/** As `Promise.all`, but when it rejects nothing is going on any more: what was done can be undone. */
export async function allEnded(works: readonly Promise<unknown>[]): Promise<void> {
  await Promise.allSettled(works);
  await Promise.all(works);
}
