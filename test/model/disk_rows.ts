/** The model's rows, and the requests that bring them. */

import type { Chunk } from "../../src/contracts.ts";
import { chunkOf } from "../kit/chunks.ts";
import type { Command } from "./disk_commands.ts";

export interface Row {
  readonly n: number;
  readonly bad: boolean;
  readonly bytes: number;
  /** The last one that brought it and was not a duplicate. */
  request: Request;
}

export interface Request {
  readonly life: number;
  readonly rows: Row[];
  /** `open`: not answered; `unsure`: never will be; `gone`: acknowledged by memory, then a crash. */
  state: "open" | "kept" | "refused" | "unsure";
  /** Its rows lie in several batches. */
  cut: boolean;
  /** They must not. */
  readonly whole: boolean;
  /** Null: its sender cannot send it again. */
  readonly key: string | null;
  /** How often its rows have come, this time included. */
  readonly time: number;
  /** Its rows as they are sent, made anew each time: the pump may do with them as it likes. */
  readonly chunk: () => Chunk;
}

/** A request whose rows are numbered from `first`. */
export function requestOf(
  { table: number, pads, fingerprint, keyed }: Command & { do: "take" },
  first: number,
  life: number,
): Request {
  const table = `t${number}`;
  const lines = pads.map((pad, at) => ({
    eventType: `type${pad % 3}`,
    n: first + at,
    bad: pad % 7 === 6,
    table,
    pad: "ü".repeat(pad),
  }));
  const key = keyed ? `key${first}` : null;
  const chunk = (): Chunk => ({
    ...chunkOf(lines, { table, fingerprint: fingerprint === 0 ? null : "f1" }),
    ...(key === null ? {} : { key: { key, hash: "h", rejected: 0 } }),
  });
  const whole = key !== null;
  const request: Request = {
    ...{ life, rows: [], state: "open", cut: false, whole, key, time: 1, chunk },
  };
  for (const line of lines) {
    const bytes = new TextEncoder().encode(JSON.stringify(line) + "\n").length;
    request.rows.push({ n: line.n, bad: line.bad, bytes, request });
  }
  return request;
}

/** The same rows come once more, and are taken as new ones. */
export function requestAgain(before: Request, life: number): Request {
  const again: Request = { ...before, life, state: "open", cut: false, time: before.time + 1 };
  for (const row of again.rows) row.request = again;
  return again;
}
