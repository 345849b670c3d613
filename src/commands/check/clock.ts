/**
 * How far a server's clock is from ours. The collector stamps events that bring no time with its own,
 * and who looks for the last minute's events asks by the server's.
 */

import type { about, Finding } from "./finding.ts";
import type { Server } from "./server.ts";

const TOLERATED_MS = 1_000;

/** Nothing where the clocks agree, or cannot be compared. */
export async function clockOf(
  server: Server,
  is: ReturnType<typeof about>,
): Promise<Finding[]> {
  const found = await aheadMs(server, "toUnixTimestamp64Milli(now64(3))", 0) ??
    // A server that knows whole seconds only.
    await aheadMs(server, "toUnixTimestamp(now()) * 1000", 1_000);
  if (found === null) return [];
  const { least, most } = found;
  if (least <= TOLERATED_MS && most >= -TOLERATED_MS) return [];
  const [off, way] = least > 0 ? [least, "ahead of"] : [-most, "behind"];
  return [is.warning(
    `its clock is ${(off / 1000).toFixed(1)} s ${way} this host's`,
    "let both be set by NTP (chronyd, systemd-timesyncd)",
  )];
}

/** Bounds of how far the server is ahead: its answer was given at some moment between question and answer. */
async function aheadMs(
  { query }: Server,
  expression: string,
  grainMs: number,
): Promise<{ readonly least: number; readonly most: number } | null> {
  const askedMs = Date.now();
  const answer = await query.rows(`SELECT toString(${expression}) AS now_ms`);
  const answeredMs = Date.now();
  const nowMs = answer.ok ? Number(answer.value[0]?.["now_ms"]) : NaN;
  if (!Number.isFinite(nowMs)) return null;
  return { least: nowMs - answeredMs, most: nowMs + grainMs - askedMs };
}
