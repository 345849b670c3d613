/**
 * An intake as a replay meets it: takes rows, has ClickHouse store or refuse them, knows a batch that it
 * was given before, and can be told to misbehave. ClickHouse is a list of rows that knows its tokens.
 */

import assert from "node:assert/strict";
import type {
  Chunk,
  Files,
  Intake,
  MessageReader,
  Refused,
  Tables,
  Ticket,
} from "../../src/contracts.ts";
import { createDeadLetters } from "../../src/dead/dead_letters.ts";
import type { LetterWriter } from "../../src/dead/writer.ts";
import { systemClock } from "../../src/kernel/time.ts";
import { nodeFiles } from "../../src/runtime/files.ts";
import { deadFolder } from "../../src/spool/data_dir.ts";
import { memoryLog } from "../kit/chunks.ts";
import { writerOf } from "./kit.ts";

/** What to do with one chunk instead of the usual. */
export type Odd =
  | "usual"
  /** Refused for now. */
  | "full"
  | "paused"
  /** Taken, and then the disk does not take it. */
  | "not kept"
  /** Taken, and ClickHouse is slow: its fate next time. */
  | "slow"
  /** Taken, and its fate waits until `release`. */
  | "hold";

/** What outlives a process. */
export class FakeClickHouse {
  /** In order. */
  readonly stored: string[] = [];
  /** Dead rows of each batch that was inserted, by its token. */
  readonly known = new Map<string, number[]>();
  /** Rows that it refuses. */
  dead: (row: string) => boolean = () => false;
}

export interface FakeIntakeOptions {
  readonly dataDir: string;
  readonly files?: Files;
  readonly clickhouse?: FakeClickHouse;
  /** Tables that it has; all unless given. */
  readonly tables?: readonly string[];
  /** Pauses are part of the promise, not of every test. */
  readonly hurry?: boolean;
  readonly unready?: () => string | null;
  readonly reader?: MessageReader;
}

export function startFakeIntake(options: FakeIntakeOptions) {
  const { dataDir, files = nodeFiles, hurry = true } = options;
  const clickhouse = options.clickhouse ?? new FakeClickHouse();
  const writer: LetterWriter = writerOf({ dataDir, files });
  const script: Odd[] = [];
  const chunks: Chunk[] = [];
  const tickets = new Map<string, Ticket>();
  const released = Promise.withResolvers<void>();

  async function insert({ table, shape, body, replay }: Chunk): Promise<number> {
    const id = replay!;
    const rows = new TextDecoder().decode(body).split("\n").slice(0, -1);
    let bad = clickhouse.known.get(id);
    if (bad === undefined) {
      bad = rows.flatMap((row, index) => clickhouse.dead(row) ? [index] : []);
      clickhouse.known.set(id, bad);
      clickhouse.stored.push(...rows.filter((row) => !clickhouse.dead(row)));
    }
    const dead = bad.map((index) => ({ index, code: 26, message: "still bad" }));
    const written = await writer.write({ id, table, shape }, dead, bad.map((at) => rows[at]!));
    return written.ok ? bad.length : await new Promise<never>(() => {});
  }

  const refused = (why: Refused["why"], reason: string): Refused => ({
    kind: "refused",
    why,
    reason,
    retryAfterS: 1,
  });

  function take(chunk: Chunk) {
    const odd = script.shift() ?? "usual";
    if (odd === "full") return refused("full", "the backlog is full");
    if (odd === "paused") return refused("closed", "paused");
    const known = tickets.get(chunk.replay!);
    if (known !== undefined) return { kind: "taken", ticket: known } as const;
    chunks.push(chunk);
    if (odd === "not kept") {
      const kept = Promise.resolve(refused("full", "ENOSPC"));
      const settled = () => Promise.resolve(null);
      return { kind: "taken", ticket: { reached: "disk", kept, settled } } as const;
    }
    let slow = odd === "slow";
    const fate = (odd === "hold" ? released.promise : Promise.resolve()).then(() => insert(chunk));
    const ticket: Ticket = {
      reached: "disk",
      kept: Promise.resolve(null),
      async settled(waitMs) {
        if (slow || waitMs <= 0) {
          slow = false;
          return null;
        }
        return { dead: await fate };
      },
    };
    tickets.set(chunk.replay!, ticket);
    return { kind: "taken", ticket } as const;
  }

  const intake: Intake = {
    marks: () => Promise.resolve(new Map()),
    taken: () => Promise.resolve(new Map()),
    committed() {},
    take,
    refusal: () => null,
    reserve: () => true,
    release() {},
    replayed: (_table, id) => tickets.get(id) ?? null,
    known: () => null,
    closed: () => null,
  };
  const has = (table: string) =>
    Promise.resolve(
      options.tables?.includes(table) === false ? "missing" as const : "unknown" as const,
    );
  const tables: Tables = { columns: () => "unknown", lookUp: has, refresh: has, doubt() {} };
  const letters = createDeadLetters({
    files,
    folder: deadFolder(dataDir),
    writer,
    intake,
    tables,
    reader: () => Promise.resolve(options.reader ?? assert.fail("nothing is to be read again")),
    portion: () => ({ rows: 1_000_000, bytes: 2 ** 30 }),
    unready: options.unready ?? (() => null),
    clock: hurry
      ? { ...systemClock, after: (_: number, task: () => void) => systemClock.after(0, task) }
      : systemClock,
    log: memoryLog(),
  });
  return {
    letters,
    writer,
    clickhouse,
    /** Every chunk that was taken. */
    chunks,
    /** The next chunks go by these, one each. */
    misbehave: (...what: readonly Odd[]) => void script.push(...what),
    release: () => released.resolve(),
  };
}

export type FakeIntake = ReturnType<typeof startFakeIntake>;
