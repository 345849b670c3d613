/** What may happen to a pump with a disk: configurations and commands. */

import fc from "fast-check";
import type { Operation } from "../kit/faulty_files.ts";

export interface Config {
  readonly ack: "disk" | "memory";
  readonly maxRows: number;
  readonly maxBytes: number;
  readonly flushIntervalMs: number;
  readonly idleIntervalMs: number | null;
  readonly backlog: number;
  readonly backlogBytes: number;
  readonly maxSpoolBytes: number;
  readonly concurrency: number;
  readonly journalFileBytes: number;
  readonly chance: number;
}

export type Answer = "stored" | "cut" | "silent" | "busy" | "table" | "bug";

export type Command =
  | {
    readonly do: "take";
    readonly table: number;
    readonly pads: readonly number[];
    readonly fingerprint: number;
    readonly waitMs: number | null;
    readonly keyed: boolean;
  }
  /** A keyed request once more, as its sender does that got no answer, or was refused. */
  | { readonly do: "again"; readonly which: number }
  /** The source reads so many messages of a partition; those that there are not yet are sent now. */
  | {
    readonly do: "poll";
    readonly partition: number;
    readonly count: number;
    readonly pads: readonly number[];
  }
  /** The broker has what is safe as acknowledged. `told`: and the process hears of it. */
  | { readonly do: "commit"; readonly partition: number; readonly told: boolean }
  | { readonly do: "reconnect" }
  | { readonly do: "advance"; readonly ms: number }
  | { readonly do: "answer"; readonly which: number; readonly with: Answer }
  | { readonly do: "answerAll"; readonly with: Answer }
  | { readonly do: "flush" | "probe" | "shut" | "open" | "heal" | "readOnly" }
  | { readonly do: "release"; readonly which: readonly number[] }
  | {
    readonly do: "fault";
    readonly on: Operation;
    readonly code: string;
    readonly skip: number;
    readonly times: number;
    readonly written: number;
  }
  | { readonly do: "full"; readonly freeBytes: number }
  /** The process ends at once, or after so many operations. `landed`: whose INSERTs went through. */
  | {
    readonly do: "crash";
    readonly how: "process" | "power";
    readonly after: number | null;
    readonly landed: number;
  }
  | {
    readonly do: "stop";
    readonly timeoutMs: number;
    readonly with: Answer | null;
    /** Operations let through between the end of the time and the end, and an answer half way. */
    readonly releases: readonly number[];
    readonly midway: Answer | null;
    readonly landed: number;
  }
  /** A second signal. */
  | { readonly do: "abandon"; readonly landed: number };

export const config: fc.Arbitrary<Config> = fc.record({
  ack: fc.constantFrom("disk", "disk", "memory"),
  maxRows: fc.integer({ min: 1, max: 12 }),
  maxBytes: fc.integer({ min: 100, max: 900 }),
  flushIntervalMs: fc.constantFrom(0, 100, 1000, 5000),
  idleIntervalMs: fc.constantFrom(null, null, 30),
  backlog: fc.oneof(fc.integer({ min: 5, max: 60 }), fc.constant(1000)),
  backlogBytes: fc.oneof(fc.integer({ min: 600, max: 3000 }), fc.constant(60_000)),
  maxSpoolBytes: fc.oneof(fc.integer({ min: 600, max: 4000 }), fc.constant(1e6), fc.constant(1e6)),
  concurrency: fc.integer({ min: 1, max: 4 }),
  // So small that files are recycled, or so large that they are not.
  journalFileBytes: fc.constantFrom(600, 1500, 4000, 1e6),
  chance: fc.nat(),
});

const answer: fc.Arbitrary<Answer> = fc.constantFrom(
  ...["stored", "stored", "stored", "stored", "cut", "cut"] as const,
  ...["silent", "silent", "busy", "table", "bug"] as const,
);

const FAULTS: readonly Operation[] = [
  ...["write", "write", "sync", "sync", "create", "overwrite", "syncFolder", "remove"] as const,
  ...["truncate", "close", "makeFolder", "append", "read", "rename", "list"] as const,
];

const few = fc.array(fc.nat(5), { minLength: 1, maxLength: 12 });

const arbitraries: { readonly weight: number; readonly arbitrary: fc.Arbitrary<Command> }[] = [
  {
    weight: 26,
    arbitrary: fc.record({
      do: fc.constant("take"),
      table: fc.nat(2),
      pads: fc.array(fc.oneof({ weight: 9, arbitrary: fc.nat(20) }, fc.constant(300)), {
        minLength: 1,
        maxLength: 14,
      }),
      fingerprint: fc.constantFrom(0, 0, 0, 1),
      waitMs: fc.constantFrom(null, null, 0, 700, 300_000),
      keyed: fc.constantFrom(false, false, true),
    }),
  },
  {
    weight: 12,
    arbitrary: fc.record({ do: fc.constant("again"), which: fc.nat(100) }),
  },
  {
    weight: 20,
    arbitrary: fc.record({
      do: fc.constant("poll"),
      partition: fc.nat(2),
      count: fc.integer({ min: 1, max: 4 }),
      pads: fc.array(fc.oneof({ weight: 9, arbitrary: fc.nat(20) }, fc.constant(200)), {
        minLength: 1,
        maxLength: 3,
      }),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant("commit"),
      partition: fc.nat(2),
      told: fc.boolean(),
    }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant("reconnect") }) },
  {
    weight: 12,
    arbitrary: fc.record({
      do: fc.constant("advance"),
      ms: fc.oneof(fc.nat(50), fc.nat(2000), fc.constant(40_000)),
    }),
  },
  {
    weight: 16,
    arbitrary: fc.record({ do: fc.constant("answer"), which: fc.nat(3), with: answer }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant("answerAll"), with: answer }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("flush") }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("probe") }) },
  { weight: 7, arbitrary: fc.record({ do: fc.constant("shut") }) },
  { weight: 5, arbitrary: fc.record({ do: fc.constant("open") }) },
  { weight: 16, arbitrary: fc.record({ do: fc.constant("release"), which: few }) },
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant("fault"),
      on: fc.constantFrom(...FAULTS),
      code: fc.constantFrom("EIO", "ENOSPC"),
      skip: fc.nat(4),
      times: fc.constantFrom(1, 1, 2, 3, 1000),
      written: fc.nat(200),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant("full"), freeBytes: fc.nat(800) }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("readOnly") }) },
  { weight: 6, arbitrary: fc.record({ do: fc.constant("heal") }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant("crash"),
      how: fc.constantFrom("process", "power"),
      after: fc.oneof(fc.constant(null), fc.integer({ min: 1, max: 40 })),
      landed: fc.nat(),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant("stop"),
      timeoutMs: fc.constantFrom(0, 100, 10_000),
      with: fc.option<Answer>(answer),
      releases: fc.array(fc.nat(5), { maxLength: 40, size: "max" }),
      midway: fc.option<Answer>(answer),
      landed: fc.nat(),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant("abandon"), landed: fc.nat() }),
  },
];

export const command: fc.Arbitrary<Command> = fc.oneof(...arbitraries);
