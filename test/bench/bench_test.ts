/**
 * What the benchmark decides: its flags, whether a run was sound, and the ratios. No run is started.
 * Runs once: functions of values alone: nothing of a runtime is asked.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Sample } from "./closed_loop.ts";
import { type Counted, problemsOf } from "./landed.ts";
import { readOptions } from "./options.ts";
import type { Results } from "./results.ts";
import { SCENARIOS } from "./scenarios.ts";
import { broken, median, summarise, summariseShared } from "./summary.ts";

const sound: Counted = {
  acceptedRows: 100,
  unansweredRows: 20,
  sinkRows: 110,
  settled: {
    ledger: { received: 110, rejected: 0, stored: 110, dead: 0, held: 0, lost: 0 },
    statuses: new Map([["202", 11], ["429", 3]]),
  },
};

test("a run is sound when all accepted rows arrived, and of the others at most the unanswered", () => {
  assert.deepEqual(problemsOf(sound), []);
});

const unsound: [what: string, change: Partial<Counted>, problem: RegExp][] = [
  ["missing rows", { sinkRows: 99 }, /1 of 100 accepted rows are missing/],
  ["rows that nobody sent", { sinkRows: 121 }, /121 rows arrived of 100 to 120/],
  ["nothing accepted", { acceptedRows: 0 }, /no row was accepted/],
  ["another count in the books", { sinkRows: 109 }, /110 rows count as stored, 109 are there/],
  [
    "rows that are held",
    { settled: { ...sound.settled, ledger: { ...sound.settled.ledger, held: 7, received: 117 } } },
    /7 rows are held/,
  ],
  [
    "books that do not balance",
    { settled: { ...sound.settled, ledger: { ...sound.settled.ledger, received: 111 } } },
    /do not balance/,
  ],
  [
    "an answer that is no refusal for want of room",
    { settled: { ...sound.settled, statuses: new Map([["500", 2]]) } },
    /2 requests were answered with 500/,
  ],
];
for (const [what, change, problem] of unsound) {
  test(`a run is broken by ${what}`, () => {
    assert.match(problemsOf({ ...sound, ...change }).join("; "), problem);
  });
}

const wrongFlags: [args: string[], named: RegExp][] = [
  [["--foo"], /--foo/],
  [["extra"], /extra/],
  [["--only", "S1,S9"], /--only: .*S1,S2.*got "S9"/],
  [["--ack", "tape"], /--ack: .*memory,disk,clickhouse.*got "tape"/],
  [["--into", ""], /--into: .*got ""/],
  [["--brokers", "redis"], /--brokers: .*redis-stream,redis-list.*got "redis"/],
  [["--rounds", "0"], /--rounds: a whole number from 1 .*got "0"/],
  [["--seconds", "1.5"], /--seconds: .*got "1.5"/],
  [["--against", "/not/there"], /--against: a build .*"\/not\/there" is not there/],
];
for (const [args, named] of wrongFlags) {
  test(`names what is wrong with ${args.join(" ")}`, () => {
    const asked = readOptions(args);
    assert.equal(asked.kind, "wrong");
    assert.match(asked.kind === "wrong" ? asked.problems.join("\n") : "", named);
  });
}

test("flags narrow a run, in the usual order", () => {
  const asked = readOptions(["--only", "S3,S1", "--ack", "disk", "--rounds", "5", "--quick"]);
  assert.equal(asked.kind, "run");
  if (asked.kind !== "run") return;
  const { parts, acks, sinks, rounds, quick } = asked.options;
  assert.deepEqual([parts, acks, sinks, rounds, quick], [
    ["S1", "S3"],
    ["disk"],
    ["swallow", "clickhouse"],
    5,
    true,
  ]);
});

function sample(rowsPerSecond: number, problems: string[] = []): Sample {
  const none = { requestsPerSecond: 0, p50Ms: 0, p99Ms: 0, p999Ms: 0, refused: 0, landedRows: 0 };
  return {
    ...none,
    ...{ rowsPerSecond, problems, acceptedRows: 0, cpuSecondsPerMillionRows: 0 },
    ...{ peakRssBytes: rowsPerSecond, writtenRatio: 0, serverBusy: 0, loadCoreBusy: 0 },
  };
}

test("a ratio is the median of the rounds, each against the reference that ran last before it", () => {
  const scenario = SCENARIOS.find(({ name }) => name === "S2")!;
  const [bare, parse] = [{ reference: "bare" }, { reference: "parse" }] as const;
  const disk = { ack: "disk", sink: "swallow" } as const;
  const closed: Results["closed"] = [];
  // The machine is half as fast in the second round.
  for (const [round, speed] of [[1, 100], [2, 50], [3, 100]] as const) {
    closed.push({ scenario, who: parse, round, sample: sample(1) });
    closed.push({ scenario, who: parse, round, sample: sample(speed) });
    closed.push({ scenario, who: bare, round, sample: sample(speed * 9) });
    closed.push({ scenario, who: disk, round, sample: sample(speed * 0.6) });
  }
  const [, , of] = summarise(closed);
  assert.deepEqual([of?.ratio, of?.target, of?.landed], [0.6, 0.55, true]);
  assert.deepEqual([of?.figures.rowsPerSecond, of?.figures.peakRssBytes], [60, 60]);
});

test("the other build is what ran right after, in the same round", () => {
  const scenario = SCENARIOS.find(({ name }) => name === "S2")!;
  const disk = { ack: "disk", sink: "swallow" } as const;
  const closed: Results["closed"] = [];
  for (const [round, speed] of [[1, 100], [2, 50], [3, 100]] as const) {
    closed.push({ scenario, who: disk, round, sample: sample(speed * 0.9) });
    closed.push({ scenario, who: { ...disk, build: "other" }, round, sample: sample(speed) });
  }
  assert.deepEqual(summarise(closed).map(({ ofOther }) => ofOther), [0.9, null]);
});

test("two collectors on one port are compared with one in the same round", () => {
  const at = { p50Ms: 1, p99Ms: 2, leastShare: 0.4, problems: [] };
  const run = (collectors: number, rowsPerSecond: number, cpuSecondsPerMillionRows: number) => ({
    ...{ by: "disk" as const, collectors },
    sample: { ...at, rowsPerSecond, cpuSecondsPerMillionRows },
  });
  const rounds = [[100, 150, 2, 2], [50, 75, 1, 1.5], [100, 90, 2, 2.1]] as const;
  const runs = rounds.flatMap(([one, two, cost, costOfTwo]) => [
    run(1, one, cost),
    run(2, two, costOfTwo),
  ]);
  const [, two] = summariseShared(runs);
  assert.deepEqual([two?.collectors, two?.ofOne, two?.costOfOne, two?.landed], [
    2,
    1.5,
    1.05,
    true,
  ]);
});

test("what was broken is told with its run", () => {
  const results: Results = {
    start: null,
    closed: [{
      scenario: SCENARIOS[0]!,
      who: { ack: "memory", sink: "swallow" },
      round: 1,
      sample: sample(1, ["2 rows are lost"]),
    }],
    open: [],
    visible: [],
    shared: [],
    sources: [],
    failed: ["start: no"],
  };
  assert.deepEqual(broken(results), ["start: no", "S1 ack=memory → swallow: 2 rows are lost"]);
  assert.equal(summarise(results.closed)[0]?.landed, false);
});

test("the median of an even number is between the two in the middle", () => {
  assert.deepEqual([median([3, 1, 2]), median([4, 1, 2, 3])], [2, 2.5]);
});
