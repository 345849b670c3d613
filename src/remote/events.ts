/**
 * What a collector tells the world about itself: one event a change of its state, on
 * `PREFIX.event.GROUP.ID`. Trouble that comes and goes is looked at once a second and pausing is told
 * a few times a second at most, so nothing can make it flood; whatever is passed over so, the last
 * state is told in the end. What NATS could not carry is made up for by one event with the state of
 * the moment, and the number of those that were missed.
 */

import type { Clock, State, Status } from "../contracts.ts";
import { RateLimiter } from "../kernel/rate.ts";
import { repeat } from "../kernel/time.ts";

export interface EventDeps {
  readonly status: () => Status;
  /** Why it is degraded. */
  readonly reasons: () => readonly string[];
  readonly clock: Clock;
  /** @returns false when it certainly was not sent. */
  readonly publish: (payload: Uint8Array) => boolean;
}

export interface Events {
  /** NATS is there: `started` for the first time, `reconnected` afterwards. */
  connected(): void;
  /** The state may have changed; tells it where it has. */
  look(): void;
  /** Ends the looking. */
  close(): void;
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

export function createEvents({ status, reasons, clock, publish }: EventDeps): Events {
  const rate = new RateLimiter(clock);
  /** Null until NATS was there for the first time. */
  let told: State | null = null;
  let missed = 0;
  const close = repeat(clock, LOOK_MS, () => move(status()));

  function move(now: Status): void {
    if (told === null) return;
    const names = changes(told, now.state);
    told = now.state;
    for (const name of names) say(name, now);
  }

  function say(event: EventName, now: Status): void {
    const { group, id, state, version, uptime_s, ledger } = now;
    const at = new Date(clock.nowMs()).toISOString();
    const why = state === "degraded" ? { reasons: bounded(reasons()) } : {};
    const lost = missed > 0 ? { missed } : {};
    const whole = { event, group, id, state, at, version, uptime_s, ...why, ...lost, ledger };
    if (publish(new TextEncoder().encode(JSON.stringify(whole)))) missed = 0;
    else missed++;
  }

  return {
    connected() {
      const now = status();
      const event = told === null ? "started" : "reconnected";
      // What changed since it was last looked at was not told either.
      if (told !== null) missed += changes(told, now.state).length;
      told = now.state;
      say(event, now);
    },
    look() {
      const now = status();
      if (told === null || now.state === told) return;
      // The trouble of a table or a server is left to the clock; what was asked for is told at once.
      const ending = now.state === "draining" || now.state === "stopped";
      const pausing = now.state === "paused" || told === "paused";
      if (ending || (pausing && rate.waitMs("", CHANGES) === 0)) move(now);
    },
    close,
  };
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
