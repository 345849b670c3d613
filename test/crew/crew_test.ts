/** Workers that are no processes, on a clock of the test: started, asked, told, mourned. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Report, Status, WorkerProcess } from "../../src/contracts.ts";
import { createCrew } from "../../src/crew/crew.ts";
import { ManualClock, settle } from "../kit/manual_clock.ts";

const reportOf = (state: Status["state"], cpuSeconds = 1, recovering = false) =>
  ({ status: { state, recovering }, unready: [], counts: {}, cpuSeconds }) as unknown as Report;

/** Who is spawned meanwhile hears nothing before this resolves. */
const asleep: { until: Promise<unknown> | null } = { until: null };

/** A worker whose end and answers the test decides. */
class Fake implements WorkerProcess {
  readonly pid = 1;
  readonly calls: { method: string; given: unknown }[] = [];
  readonly exited: Promise<string>;
  report = reportOf("running");
  silent = false;
  /** What it answers to a method, where not as usual. */
  readonly answers = new Map<string, unknown>();
  /** Resolves when it can hear and answer. */
  awake: Promise<unknown> = asleep.until ?? Promise.resolve();
  #exit = (_how: string) => {};
  #dead = new Promise<never>(() => {});

  constructor(
    readonly number: number,
    readonly ended: (report: Report) => void,
    readonly problem: string | null,
  ) {
    this.exited = new Promise((resolve) => this.#exit = resolve);
    this.#dead = this.exited.then(() => Promise.reject(new Error("it has ended")));
    this.#dead.catch(() => {});
  }

  call<T>(method: string, given?: unknown): Promise<T> {
    this.calls.push({ method, given });
    if (this.silent) return this.#dead;
    if (method === "start") {
      const { problem, report } = this;
      return this.awake.then(() => (problem === null ? { report } : { problem }) as T);
    }
    const usual = method === "flush" ? true : this.report;
    return Promise.resolve((this.answers.has(method) ? this.answers.get(method) : usual) as T);
  }

  kill(): void {
    this.#exit("SIGKILL");
  }

  /** As a worker does that has drained. */
  drain(): void {
    this.ended(reportOf("stopped"));
    this.#exit("exit code 0");
  }

  told(): string {
    return this.calls.map(({ method }) => method).join(" ");
  }
}

function kit(size: number, problems: (string | null)[] = [], fate: "stored" | "lost" = "stored") {
  const clock = new ManualClock();
  const workers: Fake[] = [];
  const booked: string[] = [];
  const logged: string[] = [];
  const at = (message: string) => void logged.push(message);
  const crew = createCrew({
    size,
    spawn(number, ended) {
      const worker = new Fake(number, ended, problems.shift() ?? null);
      workers.push(worker);
      return worker;
    },
    polled: () => {},
    settings: (number) => ({ dataDir: `worker-${number}` }),
    listeners: 1,
    joint: {
      took: (number) => void booked.push(`took ${number}`),
      died: (number) => void booked.push(`died ${number}`),
      settle: (number, how) => void booked.push(`${how} ${number}`),
      owed: () => new Map(),
    },
    fate: () => fate,
    stopMs: () => 20_000,
    clock,
    log: { debug: at, info: at, warn: at, error: at },
  });
  return { crew, clock, workers, booked, logged };
}

test("each worker is started with what is its own, and asked once a second", async () => {
  const { crew, clock, workers } = kit(2);
  assert.equal(await crew.start(), null);
  assert.deepEqual(workers.map(({ calls }) => calls[0]?.given), [
    { settings: { dataDir: "worker-1" }, number: 1, listeners: 1, paused: false },
    { settings: { dataDir: "worker-2" }, number: 2, listeners: 1, paused: false },
  ]);
  await clock.advance(3_000);
  assert.deepEqual(
    workers.map((worker) => worker.told()),
    Array(2).fill("start report report report"),
  );
});

test("one that cannot start is a reason, and then none is left", async () => {
  const { crew, clock, workers, logged } = kit(2, [null, "no such address"]);
  assert.equal(await crew.start(), "worker 2: no such address");
  assert.equal(await workers[0]!.exited, "SIGKILL");
  await clock.advance(60_000);
  assert.equal(workers.length, 2);
  assert.deepEqual(logged.filter((line) => line.includes("again")), []);
});

test("new settings go to each; one that does not take them is a reason, one that dies is not", async () => {
  const { crew, workers } = kit(2);
  await crew.start();
  const [one, two] = workers as [Fake, Fake];
  one.answers.set("adopt", null);
  two.answers.set("adopt", null);
  assert.equal(await crew.adopt(), null);
  assert.deepEqual(workers.map(({ calls }) => calls.at(-1)), [
    { method: "adopt", given: { dataDir: "worker-1" } },
    { method: "adopt", given: { dataDir: "worker-2" } },
  ]);
  two.answers.set("adopt", "worker 2: no");
  assert.equal(await crew.adopt(), "worker 2: no");
  two.silent = true;
  const adopting = crew.adopt();
  two.kill();
  assert.equal(await adopting, null);
});

test("one that dies is mourned and started again, later each time, told that all are paused", async () => {
  const { crew, clock, workers, booked } = kit(2);
  await crew.start();
  crew.pause();
  const delays: number[] = [];
  for (let death = 0; death < 10; death++) {
    const diedMs = clock.monotonicMs();
    const known = workers.length;
    workers.findLast(({ number }) => number === 2)!.kill();
    await settle();
    assert.equal(booked.at(-1), "died 2");
    assert.deepEqual(crew.down(), ["worker 2 has died (SIGKILL) and is started again"]);
    while (workers.length === known) await clock.advance(10);
    delays.push(clock.monotonicMs() - diedMs);
    assert.equal(workers.at(-1)!.number, 2);
    assert.deepEqual(crew.down(), []);
  }
  assert.ok(delays[0]! <= 110, `${delays}`);
  assert.ok(delays[9]! >= 5_000 && delays[9]! <= 10_010, `${delays}`);
  assert.equal((workers.at(-1)!.calls[0]!.given as { paused: boolean }).paused, true);
  await clock.advance(60_000);
  workers.at(-1)!.kill();
  await clock.advance(110);
  assert.equal(workers.length, 13, "who lived for long starts anew");
});

test("what a dead worker owes is settled when its successor has read the spool", async () => {
  const { crew, clock, workers, booked } = kit(1);
  await crew.start();
  workers[0]!.kill();
  await clock.advance(110);
  workers[1]!.report = reportOf("running", 1, true);
  booked.length = 0;
  await clock.advance(1_000);
  assert.deepEqual(booked, ["took 1"], "it is still reading");
  workers[1]!.report = reportOf("draining");
  await clock.advance(1_000);
  assert.deepEqual(booked, ["took 1", "took 1"], "it reads no further");
  workers[1]!.report = reportOf("running");
  await clock.advance(1_000);
  assert.deepEqual(booked.slice(2), ["took 1", "stored 1"]);
});

test("a flush is done when every worker says so, and not while one is away", async () => {
  const { crew, workers } = kit(2);
  await crew.start();
  assert.equal(await crew.flush(1_000), true);
  workers[1]!.kill();
  await settle();
  assert.equal(await crew.flush(1_000), false);
});

test("a stop waits for all, and starts none again", async () => {
  const { crew, clock, workers, booked } = kit(2, [], "lost");
  await crew.start();
  workers[0]!.kill();
  await settle();
  let stopped = false;
  const stopping = crew.stop("SIGTERM").then(() => stopped = true);
  await clock.advance(5_000);
  assert.equal(stopped, false);
  assert.equal(workers.length, 2);
  workers[1]!.drain();
  await stopping;
  assert.equal(crew.reports().length, 1, "its last report stands");
  assert.ok(booked.includes("lost 1"));
  assert.equal(clock.pending, 0, "no timer is left");
});

test("who does not end is killed", async () => {
  const { crew, clock, workers, logged } = kit(1);
  await crew.start();
  workers[0]!.silent = true;
  const stopping = crew.stop("SIGTERM");
  await clock.advance(20_000);
  await stopping;
  assert.ok(logged.includes("a worker does not end; it is killed"));
});

test("one that starts while all are told something is told when it can hear", async () => {
  const { crew, clock, workers } = kit(1);
  let wake = (_: null) => {};
  await crew.start();
  workers[0]!.kill();
  const restarted = new Promise<null>((resolve) => wake = resolve);
  await settle();
  asleep.until = restarted;
  await clock.advance(110);
  asleep.until = null;
  crew.pause();
  const stopping = crew.stop("SIGTERM", 0);
  const given = { why: "SIGTERM", withinMs: 0 };
  workers[1]!.calls.length = 0;
  wake(null);
  await settle();
  assert.deepEqual(workers[1]!.calls, [
    { method: "pause", given: undefined },
    { method: "stop", given },
  ]);
  workers[1]!.drain();
  await stopping;
});

test("a round of reports that is asked for begins afterwards", async () => {
  const { crew, workers } = kit(1);
  await crew.start();
  await Promise.all([crew.refresh(), crew.refresh()]);
  assert.equal(workers[0]!.told(), "start report", "those who ask at once share a round");
  const first = crew.refresh();
  await settle();
  await Promise.all([first, crew.refresh()]);
  assert.equal(workers[0]!.told(), "start report report report");
});

test("CPU time of the dead is not forgotten", async () => {
  const { crew, clock, workers } = kit(2);
  await crew.start();
  workers[0]!.kill();
  await clock.advance(110);
  assert.equal(crew.cpuSeconds(), 3);
});
