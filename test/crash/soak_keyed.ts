/**
 * Clients that post to six tables, a few rows or more than a batch holds, often under an
 * `Idempotency-Key`. A keyed request without an answer is sent again until there is one, also twice at
 * once; so its rows are never in doubt, and what the answers may say is known exactly.
 */
import assert from "node:assert/strict";
import { pause } from "../kit/wait.ts";

/** Of requests: with a key; sent twice at once; repeated later; repeated with another body. */
const KEYED = 0.4;
const TWICE = 0.15;
const LATER = 0.3;
const OTHERWISE = 0.1;
/** Requests of more rows than a batch may have. */
const LARGE = 0.04;
const LARGE_ROWS = 700;
const POST_MS = 30_000;

export const TABLES = ["analytics_events", "a", "b", "c", "d", "e"] as const;

/** One request, and what became of it. */
export interface Write {
  readonly table: string;
  readonly ids: readonly string[];
  /** Null: without. */
  readonly key: string | null;
  fate: "open" | "acknowledged" | "refused" | "unanswered";
  /** What `position` said before it was sent for the first time, and after it was acknowledged. */
  readonly sentAt: number;
  acknowledgedAt: number;
}

/** What a write was answered; status 0: nothing, the connection broke. */
export interface Answered {
  readonly status: number;
  readonly accepted: number;
  readonly duplicate: boolean;
}

export interface KeyedOptions {
  readonly url: string;
  readonly clients: number;
  readonly random: () => number;
  /** Of time, as the test counts it; 0 unless given. */
  readonly position?: () => number;
  /** A client waits at most so long between two requests; 40. */
  readonly pauseMs?: number;
}

export class KeyedCrowd {
  readonly writes: Write[] = [];
  /** Keyed requests: taken, after a lost answer; answered as duplicates; refused for another body. */
  readonly keyed = { taken: 0, inDoubt: 0, repeated: 0, otherwise: 0 };
  readonly statuses = new Map<number, number>();
  acknowledged = 0;
  /** An answer that must not be. */
  broken: unknown = null;
  #running = true;
  readonly #clients: Promise<unknown>;

  constructor(readonly options: KeyedOptions) {
    this.#clients = Promise.all(Array.from({ length: options.clients }, () => this.#client()));
  }

  /** Each client ends what it has begun, so the collector has to run; throws what was broken. */
  async stop(): Promise<void> {
    this.#running = false;
    await this.#clients;
    if (this.broken !== null) throw this.broken;
  }

  /** Nothing more is sent, nor waited for. */
  abandon(): void {
    this.#running = false;
    this.broken ??= new Error("given up");
  }

  async #client(): Promise<void> {
    const { random, pauseMs = 40 } = this.options;
    while (this.#running && this.broken === null) {
      try {
        const taken = random() < KEYED ? await this.#keyedPost() : await this.#plainPost();
        await pause(taken ? random() * pauseMs : 20 + random() * 60);
      } catch (problem) {
        this.broken ??= problem;
      }
    }
  }

  #begin(key: string | null): Write {
    const { random, position = () => 0 } = this.options;
    const table = TABLES[Math.floor(random() * TABLES.length)]!;
    const rows = random() < LARGE ? LARGE_ROWS * (1 + random()) : 1 + random() ** 3 * 60;
    const ids = Array.from({ length: Math.floor(rows) }, () => crypto.randomUUID());
    const sent = { sentAt: position(), acknowledgedAt: Infinity };
    const write: Write = { table, ids, key, fate: "open", ...sent };
    this.writes.push(write);
    return write;
  }

  /** @returns whether it was taken. */
  async #plainPost(): Promise<boolean> {
    const write = this.#begin(null);
    const { status } = await this.#post(write);
    assert.ok([0, 202, 429, 503].includes(status), `a write was answered ${status}`);
    if (status === 202) this.#acknowledge(write);
    else write.fate = status === 0 ? "unanswered" : "refused";
    return status === 202;
  }

  async #keyedPost(): Promise<boolean> {
    const { random } = this.options;
    const key = crypto.randomUUID();
    const write = this.#begin(key);
    const times = random() < TWICE ? 2 : 1;
    const both = await Promise.all(Array.from({ length: times }, () => this.#insist(write)));
    const firsts = both.filter(({ answer }) => !answer.duplicate).length;
    assert.ok(firsts <= 1, `taken ${firsts} times under ${key}`);
    // Only an answer that was lost can have been the first one.
    const lost = both.some(({ lost }) => lost);
    assert.ok(firsts === 1 || lost, `a duplicate of nothing under ${key}`);
    this.keyed.taken++;
    if (lost) this.keyed.inDoubt++;
    if (random() < LATER) {
      await pause(random() ** 2 * 3_000);
      await this.assertKnown(write);
    }
    if (random() < OTHERWISE) await this.#assertOtherwise(write);
    return true;
  }

  /** The same again is a duplicate. */
  async assertKnown(write: Write): Promise<void> {
    const { answer } = await this.#insist(write);
    assert.ok(answer.duplicate, `key ${write.key} of ${write.ids.length} rows was forgotten`);
    this.keyed.repeated++;
  }

  /** Sends again until it is taken. @returns the answer, and whether there was one that did not come. */
  async #insist(write: Write): Promise<{ answer: Answered; lost: boolean }> {
    for (let lost = false;;) {
      if (this.broken !== null) throw this.broken;
      const answer = await this.#post(write);
      if (answer.status === 202) {
        assert.equal(answer.accepted, write.ids.length, `accepted under ${write.key}`);
        this.#acknowledge(write);
        return { answer, lost };
      }
      const { status } = answer;
      assert.ok([0, 429, 503].includes(status), `${write.key} was answered ${status}`);
      lost ||= status === 0;
      await pause(20 + this.options.random() * 60);
    }
  }

  async #assertOtherwise(write: Write): Promise<void> {
    while (this.broken === null) {
      const { status } = await this.#post(write, "\n");
      if (status === 422) break;
      assert.ok([0, 429, 503].includes(status), `another body under ${write.key}: ${status}`);
      await pause(20 + this.options.random() * 60);
    }
    this.keyed.otherwise++;
  }

  async #post(write: Write, behind = ""): Promise<Answered> {
    const answered = await post(this.options.url, write, behind);
    this.statuses.set(answered.status, (this.statuses.get(answered.status) ?? 0) + 1);
    return answered;
  }

  #acknowledge(write: Write): void {
    if (write.fate === "acknowledged") return;
    write.fate = "acknowledged";
    write.acknowledgedAt = this.options.position?.() ?? 0;
    this.acknowledged += write.ids.length;
  }
}

/** Sends a write, once. */
export async function post(url: string, write: Write, behind = ""): Promise<Answered> {
  const { table, key } = write;
  try {
    const answer = await fetch(url + (table === TABLES[0] ? "/events" : `/events/${table}`), {
      method: "POST",
      body: bodyOf(write) + behind,
      headers: key === null ? {} : { "idempotency-key": key },
      signal: AbortSignal.timeout(POST_MS),
    });
    const { accepted = 0, duplicate = false } = await answer.json();
    return { status: answer.status, accepted, duplicate };
  } catch {
    return { status: 0, accepted: 0, duplicate: false };
  }
}

/** The same each time. */
function bodyOf({ table, ids }: Write): string {
  const lines = ids.map((id, n) =>
    table === TABLES[0]
      ? { id, eventType: "soak", userId: `u${n}`, properties: { n, page: "/pricing" } }
      : { id, n, text: `value ${n} of ${ids.length}` }
  );
  return lines.map((line) => JSON.stringify(line)).join("\n");
}
