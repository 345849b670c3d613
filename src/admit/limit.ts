/**
 * How often one client may ask. A bucket that holds one period's requests and fills up steadily, kept
 * as one number a client: when it will be full again (GCRA, ITU-T I.371). Memory is bounded: beyond
 * `MOST_CLIENTS` the one that was quiet longest is forgotten, which lets it in and never another out.
 */

import { nodeNet } from "../builtins.ts";
import type { Clock } from "../contracts.ts";

/** So many requests in a period. */
export interface Rate {
  readonly count: number;
  readonly periodMs: number;
}

export const MOST_CLIENTS = 10_000;

export class Limit {
  /** When the bucket of a client is full again, monotonic; least recently seen first. */
  readonly #fullAtMs = new Map<string, number>();
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** 0: the client may ask, and it is counted. Else after how many milliseconds it may. */
  waitMs(client: string, { count, periodMs }: Rate): number {
    const nowMs = this.#clock.monotonicMs();
    // No bucket is more than empty, also where its period was a longer one before.
    const knownMs = Math.min(this.#fullAtMs.get(client) ?? 0, nowMs + periodMs);
    const fullAtMs = Math.max(knownMs, nowMs) + periodMs / count;
    const waitMs = fullAtMs - nowMs - periodMs;
    // Sums of fractions: a millionth of a millisecond is nothing to wait for.
    const mayAsk = waitMs <= 1e-6;
    this.#fullAtMs.delete(client);
    this.#fullAtMs.set(client, mayAsk ? fullAtMs : knownMs);
    if (this.#fullAtMs.size > MOST_CLIENTS) this.#forgetOne();
    return mayAsk ? 0 : waitMs;
  }

  #forgetOne(): void {
    for (const client of this.#fullAtMs.keys()) {
      this.#fullAtMs.delete(client);
      return;
    }
  }
}

/** Who counts as one client: an IPv4 address, or the /64 of an IPv6 one, which is given to one site. */
export function clientOf(address: string): string {
  const bare = address.replace(/%.*$/, "").toLowerCase();
  if (!nodeNet().isIPv6(bare)) return bare;
  const mapped = bare.replace(/^::ffff:/, "");
  if (nodeNet().isIPv4(mapped)) return mapped;
  const [head = "", tail = ""] = bare.split("::");
  const left = head.split(":");
  const missing = 8 - left.length - tail.split(":").length;
  const groups = [...left, ...new Array(Math.max(0, missing)).fill("0"), ...tail.split(":")];
  return groups.slice(0, 4).map((group) => group.replace(/^0*(?=.)/, "") || "0").join(":");
}
