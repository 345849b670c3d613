/** Bytes → rows by `JSON.parse` alone: each object that has an `n` is a row. What the collector does is `admit/`'s. */

import type { MessageReader, Read } from "../../src/contracts.ts";
import { done, failed } from "../../src/kernel/result.ts";

const encoder = new TextEncoder();

function values(body: Uint8Array): unknown[] | null {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(body)
      .replaceAll("\x1e", "\n").split("\n")
      .filter((line) => line.trim() !== "").flatMap((line) => JSON.parse(line));
  } catch {
    return null;
  }
}

const isRow = (value: unknown) => typeof value === "object" && value !== null && "n" in value;

export class PlainReader implements MessageReader {
  /** Why the tables take no rows. */
  waits: string | null = null;

  unpack(body: Uint8Array, encoding: string) {
    return Promise.resolve(encoding === "plain" ? done(body) : failed(`unknown ${encoding}`));
  }

  read(table: string | null, body: Uint8Array): Promise<Read> {
    return Promise.resolve(this.#read(table, body));
  }

  #read(table: string | null, body: Uint8Array): Read {
    if (this.waits !== null) return { kind: "wait", why: this.waits };
    const all = values(body);
    if (all === null) return { kind: "refused", error: "not JSON" };
    const rows = all.filter(isRow);
    const errors = all.flatMap((value, index) =>
      isRow(value) ? [] : [{ index, error: `no row: ${JSON.stringify(value)}` }]
    );
    return {
      kind: "rows",
      chunk: {
        table: table ?? "events",
        shape: table === null ? "event" : "row",
        rows: rows.length,
        body: encoder.encode(rows.map((row) => `${JSON.stringify(row)}\n`).join("")),
        types: new Map(),
        fingerprint: null,
      },
      rejected: errors.length,
      errors: errors.slice(0, 100),
    };
  }

  objects(body: Uint8Array): Promise<readonly string[] | null> {
    return Promise.resolve(values(body)?.map((value) => JSON.stringify(value)) ?? null);
  }

  takes(_table: string, names: readonly string[]): Promise<readonly string[]> {
    return Promise.resolve(names);
  }
}
