/**
 * `npm run bench [-- FLAGS]`: the compiled binary under load, beside servers that do the least for the
 * same requests, in turns on the same cores. Prints a table of figures and of the ratios that
 * are the targets; fails only on a broken run, never on a time. Leaves nothing behind.
 */
import process from "node:process";
import { removeDir, tempDir } from "../kit/temp.ts";
import { conditions, missing } from "./conditions.ts";
import { endRuns, move } from "./cores.ts";
import { HELP, type Options, readOptions } from "./options.ts";
import { type Job, plan } from "./plan.ts";
import { showProgress } from "./progress.ts";
import { asJson, asText } from "./report.ts";
import { createSinks, type Sink } from "./sinks.ts";
import { Stage } from "./stage.ts";
import { broken } from "./summary.ts";

/** @returns the exit code. */
async function bench(options: Options, interrupted: Promise<"interrupted">): Promise<number> {
  const stage = new Stage();
  const dir = tempDir("bench");
  stage.keep(() => Promise.resolve(removeDir(dir)));
  const progress = showProgress();
  try {
    const work = measure(options, stage, dir, progress);
    const shown = await Promise.race([work, interrupted]);
    progress.end();
    if (shown === "interrupted") {
      // What ends in its middle fails, and nobody asks why any more.
      work.catch(() => {});
      return 130;
    }
    console.log(shown.text);
    return shown.sound ? 0 : 1;
  } catch (problem) {
    progress.end();
    console.error(`bench: ${(problem as Error).message}`);
    return 1;
  } finally {
    await endRuns();
    await stage.endAll();
  }
}

async function measure(
  options: Options,
  stage: Stage,
  dir: string,
  progress: ReturnType<typeof showProgress>,
): Promise<{ readonly text: string; readonly sound: boolean }> {
  // Also this process, and what it starts unless told otherwise: the server's core is the server's.
  await move(process.pid, "load");
  const sinks = createSinks(stage);
  const { jobs, results } = plan({ options, sinks, dir, stage });
  const before = conditions(options);
  for (const [at, job] of jobs.entries()) {
    const left = jobs.slice(at).reduce((sum, { seconds }) => sum + seconds, 0);
    progress.at(at, jobs.length, job.label, left);
    const own = new Stage();
    const end = stage.keep(() => own.endAll());
    const problem = await inTime(job, own);
    if (problem !== null) results.failed.push(`${job.label}: ${problem}`);
    await endRuns();
    await end();
  }
  const real = options.sinks.includes("clickhouse") && jobs.some(({ label }) => label !== "start");
  const told = real ? { ...before, clickhouse: await version(await sinks("clickhouse")) } : before;
  return {
    text: options.json ? asJson(told, results) : asText(told, results),
    sound: broken(results).length === 0,
  };
}

/** Runs a job, however it hangs; what was wrong. */
async function inTime(job: Job, stage: Stage): Promise<string | null> {
  const withinS = Math.round(3 * job.seconds + 60);
  let limit: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<string>((resolve) => {
    limit = setTimeout(() => resolve(`not done after ${withinS} s`), withinS * 1000);
  });
  const work = job.run(stage).then(() => null, (problem: Error) => problem.message);
  const problem = await Promise.race([work, late]);
  clearTimeout(limit);
  return problem;
}

async function version(clickhouse: Sink): Promise<string> {
  return `${await clickhouse.query("SELECT version()")}, embedded`;
}

const asked = readOptions(process.argv.slice(2));
if (asked.kind === "help") {
  console.log(HELP.trimEnd());
  process.exit(0);
}
const problems = asked.kind === "wrong"
  ? asked.problems
  : [missing()].filter((one) => one !== null);
if (asked.kind === "wrong" || problems.length > 0) {
  for (const problem of problems) console.error(`bench: ${problem}`);
  process.exit(2);
}
const interrupted = new Promise<"interrupted">((resolve) => {
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(name, () => resolve("interrupted"));
  }
});
process.exit(await bench(asked.options, interrupted));
