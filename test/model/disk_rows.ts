/** The model's rows, and the requests that bring them. */

import type { Chunk } from "../../src/contracts.ts";
import { chunkOf } from "../kit/chunks.ts";
import type { Command } from "./disk_commands.ts";

export interface Row {
  readonly n: number;
  readonly bad: boolean;
  readonly bytes: number;
  readonly request: Request;
}

export interface Request {
  readonly life: number;
  readonly rows: Row[];
  /** `open`: not answered; `unsure`: never will be; `gone`: acknowledged by memory, then a crash. */
  state: "open" | "kept" | "refused" | "unsure";
  /** Its rows lie in several batches. */
  cut: boolean;
}

/** The rows of a request, numbered from `first`, and the chunk that they make. */
export function offer(
  { table: number, pads, fingerprint }: Command & { do: "take" },
  first: number,
  life: number,
): { request: Request; chunk: Chunk } {
  const request: Request = { life, rows: [], state: "open", cut: false };
  const table = `t${number}`;
  const lines = pads.map((pad, at) => ({
    eventType: `type${pad % 3}`,
    n: first + at,
    bad: pad % 7 === 6,
    table,
    pad: "ü".repeat(pad),
  }));
  for (const line of lines) {
    const bytes = new TextEncoder().encode(JSON.stringify(line) + "\n").length;
    request.rows.push({ n: line.n, bad: line.bad, bytes, request });
  }
  return {
    request,
    chunk: chunkOf(lines, { table, fingerprint: fingerprint === 0 ? null : "f1" }),
  };
}
