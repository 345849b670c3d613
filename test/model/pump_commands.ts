/** What may happen to a pump: configurations, commands and endings. */

import fc from "fast-check";

export interface Config {
  readonly maxRows: number;
  readonly maxBytes: number;
  readonly flushIntervalMs: number;
  readonly idleIntervalMs: number | null;
  readonly backlog: number;
  readonly backlogBytes: number;
  readonly concurrency: number;
  readonly chance: number;
}

export type Answer =
  | "stored"
  | "dead"
  | "silent"
  | "silentAsk"
  | "busy"
  | "busyAsk"
  | "table"
  | "crash";

export type Command =
  | {
    readonly do: "take";
    readonly table: number;
    readonly pads: readonly number[];
    readonly fingerprint: number;
    readonly asRows: boolean;
    readonly waitMs: number | null;
  }
  | { readonly do: "advance"; readonly ms: number }
  | { readonly do: "answer"; readonly which: number; readonly with: Answer; readonly more: number }
  | { readonly do: "answerAll"; readonly with: Answer; readonly more: number }
  | { readonly do: "flush"; readonly waitMs: number }
  | { readonly do: "setWall"; readonly byMs: number }
  | { readonly do: "adopt"; readonly config: Config; readonly elsewhere: boolean }
  | { readonly do: "setAside"; readonly table: number; readonly maybeStored: boolean }
  | { readonly do: "pause" | "resume" | "close" | "abandon" };

export const config: fc.Arbitrary<Config> = fc.record({
  maxRows: fc.integer({ min: 1, max: 20 }),
  maxBytes: fc.integer({ min: 40, max: 600 }),
  flushIntervalMs: fc.constantFrom(0, 1, 100, 1000, 5000),
  idleIntervalMs: fc.constantFrom(null, null, 0, 30, 400),
  backlog: fc.oneof(fc.integer({ min: 1, max: 40 }), fc.constant(400)),
  backlogBytes: fc.oneof(fc.integer({ min: 200, max: 4000 }), fc.constant(60_000)),
  concurrency: fc.integer({ min: 1, max: 5 }),
  chance: fc.nat(),
});

const answer: fc.Arbitrary<Answer> = fc.constantFrom(
  ...["stored", "stored", "stored", "dead", "silent", "silent", "silent"] as const,
  ...["silentAsk", "busy", "busyAsk", "table", "table", "crash"] as const,
);

/** Which rows are dead, and what `Retry-After` says: sometimes `0`. */
const more = fc.oneof({ weight: 4, arbitrary: fc.nat() }, fc.constant(0));

export const command: fc.Arbitrary<Command> = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({
      do: fc.constant("take" as const),
      table: fc.nat(3),
      pads: fc.array(fc.oneof({ weight: 9, arbitrary: fc.nat(20) }, fc.constant(400)), {
        minLength: 1,
        maxLength: 30,
      }),
      fingerprint: fc.constantFrom(0, 0, 0, 1, 2),
      asRows: fc.boolean(),
      waitMs: fc.constantFrom(null, null, 0, 700, 300_000),
    }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant("advance" as const),
      ms: fc.oneof(fc.nat(50), fc.nat(2000), fc.constant(40_000)),
    }),
  },
  {
    weight: 14,
    arbitrary: fc.record({
      do: fc.constant("answer" as const),
      which: fc.nat(5),
      with: answer,
      more,
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant("answerAll" as const), with: answer, more }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant("flush" as const), waitMs: fc.nat(100_000) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant("setWall" as const),
      byMs: fc.integer({ min: -1e8, max: 1e8 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant("adopt" as const), config, elsewhere: fc.boolean() }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant("setAside" as const),
      table: fc.nat(3),
      maybeStored: fc.boolean(),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom("pause" as const, "resume" as const) }) },
);

export const ending: fc.Arbitrary<"run" | "close" | "abandon"> = fc.constantFrom(
  "run",
  "close",
  "abandon",
);
