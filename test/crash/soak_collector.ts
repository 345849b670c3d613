/** The binary under test in the soak: it comes and goes, and is scraped whenever it is there. */
import assert from "node:assert/strict";
import { type Shishi, startShishi } from "../kit/shishi.ts";
import { pause } from "../kit/wait.ts";
import { assertBalance } from "../system/books.ts";

const SCRAPE_MS = 250;

export class Collector {
  /** What no later reading can mend: books that do not balance, rows lost, an end that nobody asked for. */
  broken: unknown = null;
  scrapes = 0;
  mostHeld = 0;
  #shishi: Shishi | null = null;
  #scraping: Promise<void> = Promise.resolve();

  constructor(readonly args: readonly string[]) {}

  get running(): Shishi {
    if (this.#shishi === null) throw new Error("the collector is not running");
    return this.#shishi;
  }

  /** @param binary users' own, unless it is another one's path. */
  async start(binary: boolean | string = true): Promise<void> {
    const shishi = this.#shishi = await startShishi({ args: this.args, binary });
    this.#scraping = this.#scrape(shishi).catch((problem) => void (this.broken ??= problem));
    void shishi.exited.then(({ code, signal }) => {
      if (this.#shishi === shishi) this.broken ??= new Error(`it ended with ${signal ?? code}`);
    });
  }

  /** SIGKILL. */
  async kill(): Promise<void> {
    const shishi = this.running;
    this.#shishi = null;
    await shishi.kill();
    await this.#scraping;
    await shishi.close();
  }

  /** SIGTERM; it must end well, with nothing lost. */
  async terminate(): Promise<void> {
    const shishi = this.running;
    this.#shishi = null;
    shishi.signal("SIGTERM");
    const { code } = await shishi.exited;
    await this.#scraping;
    const last = shishi.lines().at(-1);
    assert.equal(code, 0, JSON.stringify(last));
    assert.equal(last?.lost, 0, JSON.stringify(last));
    await shishi.close();
  }

  stderr(): string {
    return this.#shishi?.stderr() ?? "";
  }

  async close(): Promise<void> {
    if (this.#shishi !== null) await this.kill();
  }

  async #scrape(shishi: Shishi): Promise<void> {
    while (this.#shishi === shishi) {
      const status = await shishi.status().catch(() => null);
      if (status !== null) {
        assertBalance(status.ledger, "/api/status");
        assert.equal(status.ledger.lost, 0);
        this.mostHeld = Math.max(this.mostHeld, status.ledger.held);
        this.scrapes++;
      }
      await pause(SCRAPE_MS);
    }
  }
}
