/**
 * Bodies of messages, read as bodies of requests are: the same forms, the same checks, and tables and columns
 * made where rows ask for them. What a request would be refused for until something is changed by hand
 * (no such table, no right) says nothing against a message: it waits.
 */

import type { Chunk, Columns, MessageReader, Read } from "../contracts.ts";
import { done, failed, type Result } from "../kernel/result.ts";
import type { Shared } from "./app.ts";
import { kept } from "./decode.ts";
import { ENCODINGS, inflate, parseEncoding } from "./body.ts";
import {
  Reading,
  type ReadingDeps,
  type Settled,
  stamped,
  stampsIn,
  UNCONFIRMED,
  type Unusable,
} from "./reading.ts";

export interface MessageReaderDeps extends Omit<ReadingDeps, "settings"> {
  readonly settings: ReadingDeps["settings"] & {
    /** The table of events. */
    readonly table: string;
    readonly maxBodyBytes: number;
    /** Of this collector. */
    readonly id: string;
  };
}

/** A first message waits so long for what ClickHouse says of its table. */
const LOOK_UP_MS = 2000;
const ALL = () => true;
const NEVER = () => false;
const utf8 = new TextDecoder();

/** @param deps asked for at each message: settings change. */
export function createMessageReader(
  deps: () => MessageReaderDeps,
  { queue, strangers }: Pick<Shared, "queue" | "strangers">,
): MessageReader {
  const reading = () => new Reading(deps(), queue, strangers);

  async function columnsOf(table: string): Promise<Columns | "missing" | "unknown"> {
    const { tables } = deps();
    const columns = tables.columns(table);
    return typeof columns === "string" ? await tables.lookUp(table, LOOK_UP_MS) : columns;
  }

  async function read(table: string | null, bytes: Uint8Array): Promise<Read> {
    const { settings: { maxBodyBytes, table: eventsTable } } = deps();
    if (bytes.length > maxBodyBytes) return { kind: "refused", error: tooLarge(maxBodyBytes) };
    const name = table ?? eventsTable;
    const one = reading();
    const target = table === null ? one.eventsOf(name) : one.rowsOf(name, await columnsOf(name));
    if ("kind" in target) return waiting(target, name);
    const given = { bytes, target, mayTake: ALL, strict: NEVER };
    const decoded = one.decode(given);
    const settled = await one.change(
      given,
      decoded instanceof Promise ? await decoded : kept(decoded),
    );
    return "kind" in settled ? waiting(settled, name) : readOf(settled);
  }

  function readOf({ decoded, target }: Settled): Read {
    if (decoded.kind === "refused") return { kind: "refused", error: decoded.error };
    const { clock, tables, settings } = deps();
    const { table, shape, columns, unknownKeys } = target;
    const stamps = shape === "event" || columns === null ? [] : stampsIn(columns);
    const { rows, rejected, errors, body, types, keys } = stamps.length === 0
      ? decoded
      : stamped(decoded, stamps, (name) => {
        if (name === "_received_at") return new Date(clock.nowMs()).toISOString();
        return name === "_collector" ? settings.id : null;
      });
    if (rejected > 0 && shape === "row") tables.doubt(table);
    // Rows with keys that are no columns yet are in batches of their own.
    const fingerprint = unknownKeys?.policy === "pass" ? null : columns?.fingerprint ?? null;
    const chunk: Chunk = { table, shape, rows, body, types, keys, fingerprint };
    return { kind: "rows", chunk, rejected, errors };
  }

  return {
    async unpack(body, header): Promise<Result<Uint8Array>> {
      const { maxBodyBytes } = deps().settings;
      const encoding = parseEncoding(header);
      if (encoding === null) return done(body);
      if (encoding === "unknown") {
        return failed(`Content-Encoding: expected one of ${ENCODINGS}, got ${header.slice(0, 64)}`);
      }
      const inflated = await inflate(body, encoding, maxBodyBytes);
      if (inflated.kind === "inflated") return done(inflated.bytes);
      return failed(
        inflated.kind === "large"
          ? tooLarge(maxBodyBytes)
          : inflated.kind === "pieces"
          ? `the body is ${encoding} of too many pieces`
          : `the body is no ${encoding}`,
      );
    },

    read,

    async objects(body) {
      const target = { table: "", shape: "row" as const, columns: null, typeCheck: false };
      const decoding = queue.decode(body, target, deps().clock.nowMs());
      const decoded = decoding instanceof Promise ? await decoding : kept(decoding);
      return decoded.kind === "rows" && decoded.rejected === 0
        ? utf8.decode(decoded.body).split("\n").slice(0, -1)
        : null;
    },

    async takes(table, names) {
      const columns = await columnsOf(table);
      const policy = deps().maker?.unknownKeys(table) ?? "error";
      if (typeof columns === "string" || policy === "column" || policy === "keep") return names;
      return names.filter((name) => columns.names.has(name));
    },
  };
}

function tooLarge(maxBytes: number): string {
  return `a message is larger than max-body-bytes (${maxBytes})`;
}

function waiting(why: Unusable, table: string): Read {
  switch (why.kind) {
    case "missing":
      return { kind: "wait", why: `there is no table ${table}` };
    case "unconfirmed":
      return { kind: "wait", why: UNCONFIRMED };
    case "closed":
      return { kind: "wait", why: why.closed.reason };
    case "unmade":
      return why.why === "rows"
        ? { kind: "refused", error: why.problem }
        : { kind: "wait", why: why.problem };
  }
}
