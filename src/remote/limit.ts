/**
 * A token bucket: at most `perSecond` on average, and as many at once after a quiet second. Pure but
 * for its own count; time is handed in.
 */

export interface Limit {
  /** @param nowMs monotonic. @returns whether one more may pass. */
  admit(nowMs: number): boolean;
}

export function createLimit(perSecond: number): Limit {
  let tokens = perSecond;
  let lastMs = -Infinity;
  return {
    admit(nowMs) {
      const gained = Math.max(0, nowMs - lastMs) * perSecond / 1000;
      tokens = Math.min(perSecond, tokens + gained);
      lastMs = nowMs;
      if (tokens < 1) return false;
      tokens -= 1;
      return true;
    },
  };
}
