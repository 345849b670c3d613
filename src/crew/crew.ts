/**
 * The workers of a collector that is several processes: started, asked, told, started again when they
 * die. `supervisor.ts` tells the whole.
 *
 * Promises: a worker that dies is started again, after 0.1 s at first and 10 s at most; what it had
 * counted stays counted. A report is at most a second old, or as old as the last answer of a worker
 * that does not answer. At the end every worker has ended, by itself or by force.
 */

import type { Report, Started, WorkerProcess } from "../contracts.ts";
import type { Crew, CrewDeps } from "./crew_deps.ts";

interface Member {
  readonly number: number;
  process: WorkerProcess | null;
  report: Report | null;
  /** It said that it has drained. */
  ended: boolean;
  startedMs: number;
  failures: number;
  why: string;
  cancelRestart: () => void;
}

const REPORT_EVERY_MS = 1_000;
const REPORT_WITHIN_MS = 2_000;
const ADOPT_WITHIN_MS = 30_000;
const ABANDON_WITHIN_MS = 1_000;
const EXIT_WITHIN_MS = 1_000;
const RESTART_MS = { first: 100, most: 10_000 };
/** Who lived so long has not died of its start. */
const SOUND_MS = 60_000;

export function createCrew(deps: CrewDeps): Crew {
  const { joint, clock, log } = deps;
  const members = Array.from({ length: deps.size }, (_, at): Member => ({
    number: at + 1,
    process: null,
    report: null,
    ended: false,
    startedMs: 0,
    failures: 0,
    why: "",
    cancelRestart: () => {},
  }));
  let paused = false;
  /** All have been started, and none is to stop. */
  let running = false;
  let stopping = false;
  let stopGiven: { readonly why: string; readonly withinMs: number | undefined } | null = null;
  let cancelPoll = () => {};
  /** CPU seconds of those that have died. */
  let spentSeconds = 0;
  let asking: Promise<void> = Promise.resolve();
  let asked: Promise<void> | null = null;
  let tellGone = () => {};

  function took(member: Member, report: Report): void {
    member.report = report;
    joint.took(member.number, report.counts);
    const { recovering, state } = report.status;
    // Who stops reads no further: the rest is for the next start.
    if (recovering || state === "draining" || state === "stopped") return;
    joint.settle(member.number, deps.fate());
  }

  /** @returns why it does not run, or null. */
  async function launch(member: Member): Promise<string | null> {
    const { number } = member;
    const child = deps.spawn(number, (report) => {
      took(member, report);
      member.ended = true;
    });
    member.process = child;
    member.why = "";
    member.startedMs = clock.monotonicMs();
    const exited = child.exited.then((how) => gone(member, how));
    let cancelKill = () => {};
    try {
      const told = paused;
      const settings = deps.settings(number);
      const { listeners } = deps;
      const given = { settings, number, listeners, paused };
      const started = await child.call<Started>("start", given);
      if ("report" in started) {
        took(member, started.report);
        // What it could not be told while it started.
        if (paused !== told) child.call(paused ? "pause" : "resume").catch(() => {});
        if (stopGiven !== null) child.call("stop", stopGiven).catch(() => {});
        return null;
      }
      member.why = started.problem;
      child.kill();
    } catch {
      // It has closed its pipe: it is about to tell by its exit how it died.
      cancelKill = clock.after(EXIT_WITHIN_MS, () => child.kill());
    }
    await exited;
    cancelKill();
    return `worker ${number}: ${member.why}`;
  }

  function gone(member: Member, how: string): void {
    const { number, report } = member;
    member.process = null;
    spentSeconds += report?.cpuSeconds ?? 0;
    if (!member.ended) {
      joint.died(number);
      member.report = null;
      member.why ||= how;
      if (running) restartSoon(member);
      else if (stopping) {
        log.error("a worker died while it stopped", { worker: number, error: how });
      }
    }
    tellGone();
  }

  function restartSoon(member: Member): void {
    const lived = clock.monotonicMs() - member.startedMs;
    member.failures = lived >= SOUND_MS ? 0 : member.failures + 1;
    const ceiling = RESTART_MS.first * 2 ** Math.min(member.failures - 1, 10);
    const delayMs = Math.min(RESTART_MS.most, ceiling) * (0.5 + clock.random() / 2);
    log.error("a worker died; it is started again", {
      worker: member.number,
      error: member.why,
      again_ms: Math.round(delayMs),
    });
    member.cancelRestart = clock.after(delayMs, async () => {
      if (!running) return;
      if (await launch(member) === null) log.info("a worker runs again", { worker: member.number });
    });
  }

  async function ask(member: Member): Promise<void> {
    const { process } = member;
    try {
      const report = await process?.call<Report>("report", null, REPORT_WITHIN_MS);
      // It may have died, or said its last, while it was waited for.
      if (report && member.process === process && !member.ended) took(member, report);
    } catch {
      // Its last report stands until it answers, or has died.
    }
  }

  /** A round that begins after the call: what was acknowledged before is in it. */
  function refresh(): Promise<void> {
    return asked ??= asking.then(() => {
      asked = null;
      const round = Promise.all(members.map(ask)).then(() => {});
      asking = round;
      return round;
    });
  }

  function poll(): void {
    cancelPoll = clock.after(REPORT_EVERY_MS, () =>
      void refresh().then(() => {
        deps.polled();
        poll();
      }));
  }

  /** Who has died meanwhile cannot be told, and need not. */
  function tell(method: string, given: unknown = null): void {
    for (const { process } of members) process?.call(method, given).catch(() => {});
  }

  /** Resolves with the first reason why one does not do it, or null; who dies need not. */
  async function eachDoes(
    method: string,
    given: (number: number) => unknown,
    withinMs: number,
  ): Promise<string | null> {
    const told = await Promise.all(members.map(async (member) => {
      const { number, process } = member;
      try {
        return await process?.call<string | null>(method, given(number), withinMs);
      } catch (error) {
        if (member.process !== process) return null;
        return `worker ${number}: ${(error as Error).message}`;
      }
    }));
    return told.find((problem) => typeof problem === "string") ?? null;
  }

  async function allGone(): Promise<void> {
    while (members.some(({ process }) => process !== null)) {
      await new Promise<void>((resolve) => tellGone = resolve);
    }
  }

  function end(): void {
    running = false;
    stopping = true;
    for (const { cancelRestart } of members) cancelRestart();
  }

  const reports = () => members.flatMap(({ report }) => report ?? []);

  return {
    reports,
    refresh,

    async start() {
      const problems = await Promise.all(members.map(launch));
      const problem = problems.find((one) => one !== null) ?? null;
      if (problem === null) {
        running = true;
        for (const member of members) if (member.process === null) restartSoon(member);
        poll();
      } else {
        for (const { process } of members) process?.kill();
        await allGone();
      }
      return problem;
    },

    down() {
      return members.filter(({ report, ended }) => report === null && !ended)
        .map(({ number, why }) => `worker ${number} has died (${why}) and is started again`);
    },

    cpuSeconds() {
      const alive = members.filter(({ process }) => process !== null);
      return alive.reduce((all, { report }) => all + (report?.cpuSeconds ?? 0), spentSeconds);
    },

    pause() {
      paused = true;
      tell("pause");
    },

    resume() {
      paused = false;
      tell("resume");
    },

    async flush(waitMs) {
      const done = await Promise.all(members.map(async ({ process }) => {
        try {
          return await process?.call<boolean>("flush", waitMs) ?? false;
        } catch {
          return false;
        }
      }));
      await refresh();
      return done.every(Boolean) && [...joint.owed().values()].every((rows) => rows === 0);
    },

    adopt: () => eachDoes("adopt", deps.settings, ADOPT_WITHIN_MS),
    door: (act, given, withinMs) => eachDoes("door", () => ({ act, given }), withinMs),

    async stop(why, withinMs) {
      end();
      stopGiven = { why, withinMs };
      tell("stop", stopGiven);
      const cancel = clock.after(deps.stopMs(), () => {
        for (const { number, process } of members) {
          if (process === null) continue;
          log.error("a worker does not end; it is killed", { worker: number });
          process.kill();
        }
      });
      await allGone();
      cancel();
      cancelPoll();
      // Nobody will look for them any more.
      if (deps.fate() === "lost") {
        for (const { number } of members) {
          joint.settle(number, "lost");
        }
      }
    },

    async abandon() {
      end();
      await Promise.all(members.map(async (member) => {
        try {
          const last = await member.process?.call<Report>("abandon", null, ABANDON_WITHIN_MS);
          if (last !== undefined) took(member, last);
        } catch {
          // Then its last report is all that is known.
        }
        member.process?.kill();
      }));
    },
  };
}
