import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type Dispatch, Schedule, type ScheduleOptions } from "../../src/batch/schedule.ts";
import { events } from "../kit/chunks.ts";
import { busy, stored, tableTrouble, unanswered } from "../kit/scripted_sink.ts";

const ALMOST_1 = 1 - 2 ** -53;

/** One row makes a batch, chance gives the longest waits, so that times are exact. */
function scheduleOf(options: Partial<ScheduleOptions> = {}): Schedule {
  let id = 0;
  return new Schedule({
    maxRows: 1,
    maxBytes: 1_000_000,
    flushIntervalMs: 1000,
    idleIntervalMs: null,
    concurrency: 4,
    random: () => ALMOST_1,
    mintId: () => `id-${++id}`,
    ...options,
  });
}

/** `batches` sealed batches of a table, a millisecond apart. */
function fill(schedule: Schedule, table: string, batches: number, fromMs = 0): void {
  for (let i = 0; i < batches; i++) schedule.lane(table).add(events(1, { table }), fromMs + i);
}

/** Everything that may go now. */
function takeAll(schedule: Schedule, nowMs: number): Dispatch[] {
  const taken: Dispatch[] = [];
  for (let d = schedule.next(nowMs); d !== null; d = schedule.next(nowMs)) taken.push(d);
  return taken;
}

/** The first millisecond from `fromMs` on at which something may go. */
function firstAt(schedule: Schedule, fromMs: number): { atMs: number; dispatch: Dispatch } {
  for (let atMs = Math.floor(fromMs); atMs < fromMs + 200_000; atMs++) {
    const dispatch = schedule.next(atMs);
    if (dispatch !== null) return { atMs, dispatch };
  }
  throw new Error("nothing ever goes");
}

const tables = (dispatches: Dispatch[]) => dispatches.map((d) => d.lane.table);

describe("while the server is down", () => {
  test("one probe goes out, of all tables together, and tables take turns", () => {
    const schedule = scheduleOf();
    for (const table of ["a", "b", "c"]) fill(schedule, table, 5);
    let nowMs = 100;
    for (const dispatch of takeAll(schedule, nowMs)) {
      schedule.told(dispatch, unanswered(), nowMs + 5);
    }
    const probed: string[] = [];
    for (let i = 0; i < 6; i++) {
      const { atMs, dispatch } = firstAt(schedule, nowMs + 5);
      assert.equal(schedule.next(atMs + 100_000), null, "a second one beside the probe");
      probed.push(dispatch.lane.table);
      nowMs = atMs;
      schedule.told(dispatch, unanswered(), nowMs + 5);
    }
    assert.deepEqual([...probed.slice(0, 3)].sort(), ["a", "b", "c"]);
    assert.deepEqual(probed.slice(3), probed.slice(0, 3));
  });

  test("the wait doubles from 250 ms to 30 s and there is no last attempt", () => {
    const schedule = scheduleOf({ concurrency: 1 });
    fill(schedule, "a", 1);
    const waits: number[] = [];
    let { atMs, dispatch } = firstAt(schedule, 10);
    for (let i = 0; i < 40; i++) {
      schedule.told(dispatch, unanswered(), atMs);
      const failedAtMs = atMs;
      ({ atMs, dispatch } = firstAt(schedule, atMs));
      waits.push(atMs - failedAtMs);
    }
    assert.deepEqual(waits.slice(0, 8), [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
    assert.equal(waits.at(-1), 30_000);
  });

  const together: [string, number[]][] = [
    ["within one millisecond", [100, 100, 100, 100]],
    ["one after the other", [110, 120, 300, 30_000]],
  ];
  for (const [name, times] of together) {
    test(`four attempts that fail together count once: ${name}`, () => {
      const schedule = scheduleOf();
      for (const table of ["a", "b", "c", "d"]) fill(schedule, table, 1);
      const taken = takeAll(schedule, 100);
      assert.equal(taken.length, 4);
      taken.forEach((dispatch, i) => schedule.told(dispatch, unanswered(), times[i]!));
      const lastMs = times.at(-1)!;
      const { atMs, dispatch } = firstAt(schedule, lastMs);
      assert.ok(atMs <= Math.max(lastMs, times[0]! + 500), `the first probe goes out at ${atMs}`);
      schedule.told(dispatch, unanswered(), atMs);
      assert.equal(firstAt(schedule, atMs).atMs - atMs, 1000, "the second wait");
    });
  }

  test("four attempts of one table that fail together do not lengthen that table's next backoff", () => {
    const schedule = scheduleOf();
    fill(schedule, "a", 4);
    for (const dispatch of takeAll(schedule, 100)) schedule.told(dispatch, busy(), 100);
    assert.equal(firstAt(schedule, 100).atMs, 600);
  });

  test("an outage does not count against the tables once the server is back", () => {
    const schedule = scheduleOf({ concurrency: 1 });
    fill(schedule, "a", 2);
    let { atMs, dispatch } = firstAt(schedule, 10);
    for (let i = 0; i < 20; i++) {
      schedule.told(dispatch, unanswered(), atMs);
      ({ atMs, dispatch } = firstAt(schedule, atMs));
    }
    schedule.told(dispatch, busy(), atMs);
    assert.equal(firstAt(schedule, atMs).atMs - atMs, 500, "the first backoff of the table itself");
  });

  test("any answer of ClickHouse ends it: everything goes at once", () => {
    for (const answer of [stored, tableTrouble, busy()]) {
      const schedule = scheduleOf();
      for (const table of ["a", "b", "c", "d", "e"]) fill(schedule, table, 2);
      for (const dispatch of takeAll(schedule, 100)) schedule.told(dispatch, unanswered(), 105);
      assert.notEqual(schedule.trouble, null);
      const { atMs, dispatch } = firstAt(schedule, 105);
      schedule.told(dispatch, answer, atMs);
      assert.equal(schedule.trouble, null);
      assert.equal(takeAll(schedule, atMs).length, 4);
    }
  });

  test("an answer to an attempt that was under way ends the backoff of another one", () => {
    const schedule = scheduleOf();
    fill(schedule, "a", 1);
    fill(schedule, "b", 1);
    const [first, second] = takeAll(schedule, 0);
    fill(schedule, "c", 1);
    schedule.told(first!, unanswered(), 10);
    assert.equal(schedule.next(11), null);
    schedule.told(second!, stored, 12);
    assert.notEqual(schedule.next(12), null);
  });

  test("a failure after such an answer counts, however early its attempt began", () => {
    const schedule = scheduleOf({ concurrency: 3 });
    fill(schedule, "a", 1);
    fill(schedule, "b", 1);
    fill(schedule, "c", 1);
    const [first, second, third] = takeAll(schedule, 0);
    schedule.told(first!, unanswered(), 10);
    schedule.told(second!, stored, 11);
    schedule.told(third!, unanswered(), 12);
    assert.notEqual(schedule.trouble, null);
    assert.equal(firstAt(schedule, 12).atMs, 512);
  });

  test("a table that came meanwhile is not sent beside the probe", () => {
    const schedule = scheduleOf();
    fill(schedule, "a", 4);
    for (const dispatch of takeAll(schedule, 100)) schedule.told(dispatch, unanswered(), 105);
    firstAt(schedule, 105);
    fill(schedule, "new", 1, 700);
    assert.equal(schedule.next(800), null);
  });
});

describe("Retry-After", () => {
  test("of a server or proxy is obeyed by all tables", () => {
    const schedule = scheduleOf();
    fill(schedule, "a", 1);
    fill(schedule, "b", 1);
    const [first, second] = takeAll(schedule, 0);
    schedule.told(first!, unanswered(7000), 10);
    schedule.told(second!, unanswered(), 11);
    assert.equal(firstAt(schedule, 11).atMs, 7010);
  });

  test("of an attempt that fails beside others is obeyed, too", () => {
    const schedule = scheduleOf();
    fill(schedule, "a", 1);
    fill(schedule, "b", 1);
    const [first, second] = takeAll(schedule, 0);
    schedule.told(first!, unanswered(), 10);
    schedule.told(second!, unanswered(9000), 11);
    assert.equal(firstAt(schedule, 11).atMs, 9011);
  });

  test("is obeyed although an attempt that was under way succeeds afterwards", () => {
    const schedule = scheduleOf();
    fill(schedule, "a", 5);
    const [first, second] = takeAll(schedule, 0);
    schedule.told(first!, unanswered(9000), 10);
    schedule.told(second!, stored, 11);
    assert.equal(firstAt(schedule, 11).atMs, 9010);
  });

  test("of a table holds that table only, also when others of it fail without one", () => {
    const schedule = scheduleOf();
    fill(schedule, "a", 3);
    fill(schedule, "b", 2);
    const [a1, b1, a2] = takeAll(schedule, 0);
    assert.deepEqual(tables([a1!, b1!, a2!]), ["a", "b", "a"]);
    schedule.told(a1!, busy(252, 9000), 10);
    schedule.told(a2!, busy(252), 11);
    schedule.told(b1!, stored, 12);
    for (let d = schedule.next(13); d !== null; d = schedule.next(13)) {
      assert.equal(d.lane.table, "b");
      schedule.told(d, stored, 13);
    }
    assert.equal(firstAt(schedule, 13).atMs, 9010);
  });

  test("shorter than the backoff does not shorten it", () => {
    const schedule = scheduleOf();
    fill(schedule, "a", 1);
    schedule.told(schedule.next(0)!, unanswered(1), 0);
    assert.equal(firstAt(schedule, 0).atMs, 500);
  });
});

describe("a table in trouble", () => {
  for (const answer of [tableTrouble, busy()]) {
    test(`(${answer.kind}) is probed by one batch at a time; the others flow`, () => {
      const schedule = scheduleOf();
      fill(schedule, "bad", 50);
      fill(schedule, "good", 500);
      let most = 0;
      let good = 0;
      let bad = 0;
      for (let nowMs = 0; nowMs < 20_000; nowMs += 50) {
        const taken = takeAll(schedule, nowMs);
        const here = taken.filter((d) => d.lane.table === "bad").length;
        bad += here;
        if (nowMs > 0) most = Math.max(most, here);
        good += taken.length - here;
        assert.equal(
          nowMs === 0 || good >= Math.min(500, 3 * nowMs / 50),
          true,
          `${nowMs}: ${good}`,
        );
        for (const d of taken) schedule.told(d, d.lane.table === "bad" ? answer : stored, nowMs);
      }
      assert.equal(good, 500);
      assert.equal(most, 1);
      assert.ok(bad < 15, `${bad} attempts in 20 s`);
    });
  }

  test("says what is wrong until no batch of it is refused any more", () => {
    const schedule = scheduleOf();
    fill(schedule, "a", 1);
    schedule.told(schedule.next(0)!, tableTrouble, 0);
    assert.equal(schedule.lane("a").trouble, tableTrouble.kind === "table" && tableTrouble.message);
    fill(schedule, "a", 1, 1);
    const fresh = firstAt(schedule, 500).dispatch;
    if (fresh.batch.oldestMs === 1) {
      schedule.told(fresh, stored, 500);
      assert.notEqual(schedule.lane("a").trouble, null, "one batch is still refused");
    }
    for (let nowMs = 600; schedule.lane("a").trouble !== null; nowMs += 100) {
      assert.ok(nowMs < 60_000);
      for (const d of takeAll(schedule, nowMs)) schedule.told(d, stored, nowMs);
    }
    assert.equal([...schedule.held()].length, 0);
  });

  test("a batch that its table refuses waits on its own, ever longer; fresh ones pass it", () => {
    const schedule = scheduleOf();
    fill(schedule, "a", 1);
    const first = schedule.next(0)!;
    const old = first.batch;
    schedule.told(first, tableTrouble, 0);
    let probes = 0;
    let freshSent = 0;
    for (let nowMs = 10; nowMs < 120_000; nowMs += 10) {
      if (nowMs % 1000 === 0) fill(schedule, "a", 1, nowMs);
      for (const d of takeAll(schedule, nowMs)) {
        if (d.batch === old) probes++;
        else freshSent++;
        schedule.told(d, d.batch === old ? tableTrouble : stored, nowMs);
      }
    }
    assert.ok(freshSent >= 118, `${freshSent} of 119 fresh batches`);
    assert.ok(probes >= 4 && probes <= 12, `${probes} probes in 120 s`);
  });

  test("a batch that only ever fails by itself backs off by itself", () => {
    const schedule = scheduleOf();
    fill(schedule, "a", 1);
    const [poison] = schedule.held();
    let attempts = 0;
    for (let nowMs = 0; nowMs < 120_000; nowMs += 10) {
      if (nowMs % 500 === 0) fill(schedule, "a", 1, nowMs);
      for (const d of takeAll(schedule, nowMs)) {
        if (d.batch === poison) attempts++;
        schedule.told(d, d.batch === poison ? busy(241) : stored, nowMs);
      }
    }
    assert.ok(attempts <= 15, `${attempts} attempts in 120 s`);
  });
});

describe("one table's silence is not another table's trouble", () => {
  test("a batch that is never answered while others are does not slow the others", () => {
    const schedule = scheduleOf();
    fill(schedule, "poison", 1);
    fill(schedule, "good", 1);
    let good = 0;
    let attempts = 0;
    for (let nowMs = 0; nowMs < 120_000; nowMs += 10) {
      if (nowMs % 100 === 0) fill(schedule, "good", 1, nowMs);
      for (const d of takeAll(schedule, nowMs)) {
        if (d.lane.table === "good") good++;
        else attempts++;
        schedule.told(d, d.lane.table === "good" ? stored : unanswered(), nowMs);
      }
      if (nowMs >= 60_000) {
        const late = [...schedule.held()].filter((b) =>
          b.table === "good" && nowMs - b.oldestMs > 50
        );
        assert.equal(late.length, 0, `at ${nowMs} ms ${late.length} good batches wait`);
      }
    }
    assert.ok(good >= 1190);
    assert.ok(attempts <= 20, `${attempts} attempts in 120 s`);
  });

  test("a poisonous batch of the same table does not hold up its table or others", () => {
    const schedule = scheduleOf();
    fill(schedule, "a", 1);
    const [poison] = schedule.held();
    let attempts = 0;
    let sent = 0;
    for (let nowMs = 0; nowMs < 120_000; nowMs += 10) {
      if (nowMs % 100 === 0) fill(schedule, nowMs % 200 === 0 ? "a" : "b", 1, nowMs);
      for (const d of takeAll(schedule, nowMs)) {
        if (d.batch === poison) attempts++;
        else sent++;
        schedule.told(d, d.batch === poison ? unanswered() : stored, nowMs);
      }
    }
    assert.ok(sent >= 1190, `${sent} sent`);
    assert.ok(attempts <= 20, `${attempts} attempts in 120 s`);
  });

  test("but a server that dies again is found out, whatever failed before", () => {
    const schedule = scheduleOf();
    for (let i = 0; i < 24; i++) fill(schedule, `t${i}`, 50);
    let nowMs = 0;
    // All tables have failed before; then one answer; then nobody answers any more.
    for (let round = 0; round < 60; round++) {
      const { atMs, dispatch } = firstAt(schedule, nowMs);
      nowMs = atMs;
      schedule.told(dispatch, unanswered(), nowMs);
    }
    const { atMs, dispatch } = firstAt(schedule, nowMs);
    schedule.told(dispatch, stored, atMs);
    let attempts = 0;
    for (nowMs = atMs; nowMs < atMs + 60_000; nowMs += 10) {
      const taken = takeAll(schedule, nowMs);
      attempts += taken.length;
      if (nowMs > atMs) assert.ok(taken.length <= 1, `${taken.length} at once`);
      for (const d of taken) schedule.told(d, unanswered(), nowMs);
    }
    assert.ok(attempts <= 15, `${attempts} attempts in 60 s`);
  });
});

describe("turns", () => {
  test("newest and oldest of a table alternate", () => {
    const schedule = scheduleOf({ concurrency: 1 });
    fill(schedule, "a", 6);
    const order: number[] = [];
    for (let d = schedule.next(50); d !== null; d = schedule.next(50)) {
      order.push(d.batch.oldestMs);
      schedule.told(d, stored, 50);
    }
    assert.deepEqual(order, [0, 5, 1, 4, 2, 3]);
  });

  test("50 tables get the same share, whatever stands in their queues", () => {
    const schedule = scheduleOf();
    fill(schedule, "flood", 2000);
    for (let i = 0; i < 49; i++) fill(schedule, `t${i}`, 20);
    const sent = new Map<string, number>();
    for (let i = 0; i < 250; i++) {
      for (const d of takeAll(schedule, 5000)) {
        sent.set(d.lane.table, (sent.get(d.lane.table) ?? 0) + 1);
        schedule.told(d, stored, 5000);
      }
    }
    assert.equal(sent.size, 50);
    for (const [table, n] of sent) assert.ok(n >= 19 && n <= 21, `${table}: ${n} of 1000`);
  });

  test("one table alone uses every place", () => {
    const schedule = scheduleOf();
    fill(schedule, "a", 10);
    assert.equal(takeAll(schedule, 0).length, 4);
  });

  test("no table takes the last place while there are others", () => {
    const schedule = scheduleOf();
    fill(schedule, "quiet", 1);
    fill(schedule, "slow", 10);
    const quiet = takeAll(schedule, 0).find((d) => d.lane.table === "quiet")!;
    schedule.told(quiet, stored, 1);
    assert.deepEqual(tables(takeAll(schedule, 1)), []);
    fill(schedule, "quiet", 1, 2);
    assert.deepEqual(tables(takeAll(schedule, 2)), ["quiet"]);
  });

  test("never more in flight than allowed", () => {
    for (const concurrency of [1, 2, 4]) {
      const schedule = scheduleOf({ concurrency });
      for (const table of ["a", "b", "c"]) fill(schedule, table, 10);
      const taken = takeAll(schedule, 100);
      assert.equal(taken.length, concurrency);
      schedule.told(taken[0]!, stored, 101);
      assert.equal(takeAll(schedule, 101).length, 1);
    }
  });

  test("a table that holds rows is never forgotten", () => {
    const schedule = scheduleOf({ maxRows: 2 });
    for (let i = 0; i < 1000; i++) fill(schedule, `t${i}`, 1 + i % 3);
    const batches = [...schedule.held()];
    assert.equal(batches.reduce((sum, batch) => sum + batch.rows, 0), 1 + 333 * 6);
  });

  test("tables that came and went cost nothing", () => {
    const schedule = scheduleOf();
    for (let i = 0; i < 5000; i++) {
      fill(schedule, `t${i}`, 1, i);
      schedule.told(schedule.next(i)!, stored, i);
    }
    assert.ok(schedule.lanes.size < 1000, `${schedule.lanes.size} lanes are remembered`);
  });
});

describe("hurry", () => {
  test("nothing waits out a backoff or a Retry-After, and a new one is short", () => {
    const schedule = scheduleOf();
    fill(schedule, "a", 1);
    fill(schedule, "b", 1);
    fill(schedule, "c", 1);
    const answers = new Map([["a", tableTrouble], ["b", busy(252, 60_000)], [
      "c",
      unanswered(60_000),
    ]]);
    for (const d of takeAll(schedule, 0)) schedule.told(d, answers.get(d.lane.table)!, 1);
    schedule.hurry();
    const sent = new Set<string>();
    for (let nowMs = 2; nowMs < 3000; nowMs++) {
      for (const d of takeAll(schedule, nowMs)) {
        sent.add(d.lane.table);
        schedule.told(d, answers.get(d.lane.table)!, nowMs);
      }
    }
    assert.deepEqual([...sent].sort(), ["a", "b", "c"]);
  });

  test("also a batch that its table refused goes at once", () => {
    const schedule = scheduleOf();
    fill(schedule, "a", 1);
    let nowMs = 0;
    for (let i = 0; i < 6; i++) {
      const { atMs, dispatch } = firstAt(schedule, nowMs);
      nowMs = atMs;
      schedule.told(dispatch, tableTrouble, nowMs);
    }
    assert.equal(schedule.next(nowMs + 1000), null);
    schedule.hurry();
    assert.notEqual(schedule.next(nowMs + 1000), null);
  });

  test("does not spin: attempts that fail at once are still a tenth of a second apart", () => {
    const schedule = scheduleOf({ random: () => 0 });
    fill(schedule, "a", 4);
    for (const d of takeAll(schedule, 0)) schedule.told(d, unanswered(), 0);
    schedule.hurry();
    let attempts = 0;
    for (let nowMs = 0; nowMs < 10_000; nowMs++) {
      for (let d = schedule.next(nowMs); d !== null; d = schedule.next(nowMs)) {
        schedule.told(d, unanswered(), nowMs);
        assert.ok(++attempts < 200, "attempts without end");
      }
    }
    assert.ok(attempts >= 50 && attempts <= 102, `${attempts} in 10 s`);
  });
});

test("asked when it said, the schedule always has something to send", () => {
  const schedule = scheduleOf({ maxRows: 3 });
  let seed = 7;
  const dice = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
  const under: Dispatch[] = [];
  let nowMs = 0;
  for (let step = 0; step < 4000; step++) {
    if (dice() < 0.4) fill(schedule, `t${Math.floor(dice() * 5)}`, 1, nowMs);
    if (under.length > 0 && dice() < 0.5) {
      const answers = [stored, stored, busy(), tableTrouble, unanswered()];
      const [d] = under.splice(Math.floor(dice() * under.length), 1);
      schedule.told(d!, answers[Math.floor(dice() * answers.length)]!, nowMs);
    }
    under.push(...takeAll(schedule, nowMs));
    const wakeMs = schedule.wakeAtMs();
    assert.ok(wakeMs > nowMs, "all that may go has gone");
    if (Number.isFinite(wakeMs)) {
      assert.equal(schedule.next(Math.ceil(wakeMs) - 1), null, "nothing goes before");
      if (dice() < 0.3) {
        nowMs = Math.ceil(wakeMs);
        const d = schedule.next(nowMs);
        assert.notEqual(d, null, "and something goes then");
        under.push(d!);
      }
    } else if (under.length === 0) assert.equal([...schedule.held()].length, 0);
    nowMs += Math.floor(dice() * 3);
  }
});
