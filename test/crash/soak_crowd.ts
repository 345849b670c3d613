/**
 * The clients of the soak: each posts a few or many rows to one of two tables, some of them bad, and
 * files every id under what it was told.
 */
import { pause } from "../kit/wait.ts";
import { Told } from "./told.ts";

const CLIENTS = 24;
/** Of requests to `seed` that bring a row which ClickHouse will refuse. */
const BAD = 0.02;

export class Crowd {
  readonly events = new Told();
  readonly rows = new Told();
  /** Rows for `seed` that the collector cannot know to be bad. */
  readonly bad = new Told();
  readonly statuses = new Map<number, number>();
  #running = true;
  readonly #clients: Promise<void>;

  constructor(readonly url: string, readonly random: () => number) {
    const clients = Array.from({ length: CLIENTS }, async () => {
      while (this.#running) {
        const status = await this.#post();
        await pause(status === 202 ? random() * 150 : 100 + random() * 400);
      }
    });
    this.#clients = Promise.all(clients).then(() => {});
  }

  async stop(): Promise<void> {
    this.#running = false;
    await this.#clients;
  }

  async #post(): Promise<number> {
    const { random } = this;
    const isEvents = random() < 0.6;
    const ids = Array.from(
      { length: 1 + Math.floor(random() ** 3 * 60) },
      () => crypto.randomUUID(),
    );
    const badAt = !isEvents && random() < BAD ? Math.floor(random() * ids.length) : -1;
    const lines = ids.map((id, at) =>
      JSON.stringify(
        isEvents
          ? { id, eventType: "soak", userId: `u${at}`, properties: { at, page: "/pricing" } }
          : { id, Time: at === badAt ? "no time" : 1525435200 + at, Value: `value ${at}` },
      )
    );
    let status = 0;
    try {
      const answer = await fetch(`${this.url}/events${isEvents ? "" : "/seed"}`, {
        method: "POST",
        body: lines.join("\n"),
        signal: AbortSignal.timeout(30_000),
      });
      status = answer.status;
      await answer.arrayBuffer();
    } catch {
      status = 0;
    }
    this.statuses.set(status, (this.statuses.get(status) ?? 0) + 1);
    const group = status === 202 ? "acknowledged" : status === 0 ? "unanswered" : "refused";
    for (const [at, id] of ids.entries()) {
      const told = isEvents ? this.events : at === badAt ? this.bad : this.rows;
      told[group].add(id);
    }
    return status;
  }
}
