/**
 * What a collector publishes of itself: one event a change of its state, on `PREFIX.event.GROUP.ID`.
 * Trouble that comes and goes is looked at once a second and pausing is published a few times a second at
 * most, so nothing can make it flood; whatever is passed over so, the last state is published in the end.
 * What NATS could not carry is made up for by one event with the state of the moment, and the number of
 * those that were missed.
 */

import type { Clock, State, Status } from "../contracts.ts";
import { RateLimiter } from "../kernel/rate.ts";
import { repeat } from "../kernel/time.ts";

/** What events are made of, and where they go. */
export interface EventSource {
  readonly status: () => Status;
  /** Why it is degraded. */
  readonly reasons: () => readonly string[];
  readonly clock: Clock;
  /** @returns false when it certainly was not sent. */
  readonly publish: (payload: Uint8Array) => boolean;
}

export type EventName =
  | "started"
  | "reconnected"
  | "degraded"
  | "recovered"
  | "paused"
  | "resumed"
  | "draining"
  | "stopped";

const LOOK_MS = 1_000;
/** Of pausing and resuming, at once; the rest waits for the next look. */
const CHANGES = { count: 5, periodMs: 1_000 };
const MAX_REASONS = 20;
const MAX_REASON_LENGTH = 300;

export class Events {
  readonly #source: EventSource;
  readonly #rate: RateLimiter;
  /** The last state that was published or missed; null until NATS was there for the first time. */
  #state: State | null = null;
  #missed = 0;
  readonly #endLooking: () => void;

  constructor(source: EventSource) {
    this.#source = source;
    this.#rate = new RateLimiter(source.clock);
    this.#endLooking = repeat(source.clock, LOOK_MS, () => this.#moveTo(source.status()));
  }

  /** NATS is there: `started` for the first time, `reconnected` afterwards. */
  connected(): void {
    const now = this.#source.status();
    const event = this.#state === null ? "started" : "reconnected";
    // A change since the last look was not published either.
    if (this.#state !== null) this.#missed += changes(this.#state, now.state).length;
    this.#state = now.state;
    this.#publish(event, now);
  }

  /** The state may have changed; publishes it where it has. */
  look(): void {
    const now = this.#source.status();
    if (this.#state === null || now.state === this.#state) return;
    // The trouble of a table or a server is left to the clock; what a command did is published at once.
    const ending = now.state === "draining" || now.state === "stopped";
    const pausing = now.state === "paused" || this.#state === "paused";
    if (ending || (pausing && this.#rate.waitMs("", CHANGES) === 0)) this.#moveTo(now);
  }

  /** Ends the looking. */
  close(): void {
    this.#endLooking();
  }

  #moveTo(now: Status): void {
    if (this.#state === null) return;
    const events = changes(this.#state, now.state);
    this.#state = now.state;
    for (const event of events) this.#publish(event, now);
  }

  #publish(event: EventName, now: Status): void {
    const { clock, reasons, publish } = this.#source;
    const { group, id, state, version, uptime_s, ledger } = now;
    const at = new Date(clock.nowMs()).toISOString();
    const why = state === "degraded" ? { reasons: bounded(reasons()) } : {};
    const missed = this.#missed > 0 ? { missed: this.#missed } : {};
    const whole = { event, group, id, state, at, version, uptime_s, ...why, ...missed, ledger };
    if (publish(new TextEncoder().encode(JSON.stringify(whole)))) this.#missed = 0;
    else this.#missed++;
  }
}

/** The events that lead from one state to another. */
export function changes(from: State, to: State): readonly EventName[] {
  if (from === to) return [];
  if (to === "draining" || to === "stopped" || to === "paused") return [to];
  const over: readonly EventName[] = from === "paused" ? ["resumed"] : [];
  if (to === "degraded") return [...over, "degraded"];
  return from === "degraded" ? ["recovered"] : over;
}

function bounded(reasons: readonly string[]): string[] {
  return reasons.slice(0, MAX_REASONS).map((reason) => reason.slice(0, MAX_REASON_LENGTH));
}
