/**
 * Three figures of this process under the names that every Prometheus exporter gives them. Read by
 * hand, since prom-client's default metrics report wrong values where they rely on Node's internals.
 */

import process from "node:process";

export interface ProcessFigures {
  /** Resident memory. */
  rssBytes(): number;
  /** User and system time used so far, seconds. */
  cpuSeconds(): number;
  /** When the process started, epoch seconds. */
  readonly startSeconds: number;
}

/** User and system time that this process has used so far. */
export function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

/** @param measured by the caller, who also shows it elsewhere, or adds up several processes. */
export function createProcessFigures(
  measured: Pick<ProcessFigures, "rssBytes"> & Partial<ProcessFigures>,
): ProcessFigures {
  return {
    cpuSeconds,
    ...measured,
    startSeconds: Date.now() / 1000 - process.uptime(),
  };
}
