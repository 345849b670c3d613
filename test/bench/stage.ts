/** What must be ended, whatever happens: the latest first, once, also on Ctrl-C in the middle. */
export class Stage {
  readonly #tasks = new Set<() => Promise<void>>();

  /** Keeps what a server needs for its end; the answer ends it earlier. */
  keep(end: () => Promise<void>): () => Promise<void> {
    let ended: Promise<void> | null = null;
    const once = () => ended ??= end();
    this.#tasks.add(once);
    return async () => {
      await once();
      this.#tasks.delete(once);
    };
  }

  async endAll(): Promise<void> {
    for (const task of [...this.#tasks].reverse()) await task().catch(() => {});
  }
}
