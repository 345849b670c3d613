/**
 * `npm test [-- [--quick] [--engines] [PATH …]]`: every check of the repository; with paths only those test files or
 * folders, under both runtimes; with `--quick` only unit tests (see `suites.mjs`), which need nothing
 * but the packages of npm; with `--engines` also one more age of ClickHouse, with `--engines=only` that alone.
 * Ends with a table of seconds a room, and of seconds of a processor, which decide how long all takes; the last
 * line of stdout is `N passed, N failed`; the exit code is 1 when anything failed, was skipped, or when there was no
 * test.
 */
import { spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { availableParallelism, cpus } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { suites } from "./suites.mjs";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "../..");
const BIN = join(ROOT, "node_modules/.bin");
const BINARY = join(ROOT, "dist/shishi");
/** A test that hangs ends with its name; `patient` in wait.ts may let it wait this long on a busy machine. */
const ONE_TEST_MS = 180_000;
/** Of one step; a test that hangs for ever must not hang the run. */
const STEP_MS = 16 * 60_000;
const CORES = availableParallelism();
/**
 * Tests that speak to servers mostly wait, unit tests compute. So there are always as many steps at once as
 * `least`, and up to `most` while the processors have time for one more.
 */
const AT_ONCE = {
  all: { least: CORES + 2, most: 2 * CORES + 2 },
  quick: { least: CORES, most: CORES },
};
/** What depends on the age of ClickHouse, and the age that nothing else runs with. */
const BETWEEN = {
  version: "25.5",
  files: [
    ...["test/deliver/servers_test.ts", "test/deliver/columns_test.ts"],
    ...["test/contract/inserter_test.ts", "test/admit/fit_clickhouse_test.ts"],
    "test/system/door_test.ts",
  ],
};
/** What they do is looked at as often; a step that has just begun needs a moment to show what it takes. */
const LOOK_MS = 4_000;
/** Of the time of all processors: with less of it idle no further step begins. */
const SPARE = 0.2;

const [deno, bun] = [join(BIN, "deno"), join(BIN, "bun")];
const RUNTIMES = [
  {
    name: "Bun",
    command: (files) => [bun, "test", "--timeout", String(ONE_TEST_MS), ...files],
    passed: /^ *(\d+) pass$/gm,
    failed: [/^ *(\d+) fail$/gm, /^ *(\d+) errors?$/gm, /^ *(\d+) skip$/gm, /^ *(\d+) todo$/gm],
    named: /^\(fail\) (.+)$/gm,
  },
  {
    name: "Deno",
    command: (files) => [deno, "test", "-A", "--no-check", ...files],
    // The tests of a `describe` are steps of one test here.
    passed: /\| (\d+) passed(?: \((\d+) steps?\))?/g,
    failed: [/\| (\d+) failed(?: \((\d+) steps?\))?/g, /\| (\d+) ignored(?: \((\d+) steps?\))?/g],
    named: /^(.+ \.\.\. FAILED.*)$/gm,
  },
];

const args = process.argv.slice(2);
const quick = args.includes("--quick");
const engines = args.find((arg) => /^--engines(=only)?$/.test(arg));
const paths = args.filter((arg) => arg !== "--quick" && arg !== engines);
const whole = paths.length === 0 && engines !== "--engines=only";
const began = Date.now();
const idleAtFirst = idleNow();
/** One line each: `{ name, runtime, seconds, cpuS, passed, failed }`; parts of a room are added up. */
const results = [];
/** Of a processor, as far as it is given to a step in `results`. */
let givenS = usedS();
/** What failed, by name, named once more at the end: a log is often read from there. */
const failures = [];
/** Output of steps that run at once is shown one after the other, in the order of their start. */
let turn = Promise.resolve();

/** Needs nothing but the packages, so it goes on beside what gets the servers. */
const read = whole ? source() : Promise.resolve();
if (!quick) {
  await check("servers", process.execPath, [
    "test/kit/prepare.mjs",
    "--servers",
    "--kafka",
    "--old-redis",
    engines === undefined ? "--engines=26.9" : "--engines",
    "--kubernetes",
  ]);
  if (whole) {
    await check("binary", "npm", ["run", "--silent", "build"]);
    await check("binary runs", BINARY, ["--version"]);
  } else if (!isFresh(BINARY, join(ROOT, "src"))) {
    await check("binary", "npm", ["run", "--silent", "build"]);
  }
}
/** What an age of ClickHouse does that `npm test` does not run is asked by one runtime. */
const oneRuntime = process.env.SHISHI_ENGINES !== undefined;
const rooms = whole || paths.length > 0 ? suites(ROOT, { paths, quick }) : [];
const jobs = rooms.flatMap(({ room, files, once }) =>
  RUNTIMES.slice(0, once || oneRuntime ? 1 : undefined).map((runtime) => () =>
    tests(room, runtime, files)
  )
);
if (engines !== undefined) {
  const env = { SHISHI_ENGINES: BETWEEN.version };
  jobs.unshift(() => tests("ages", RUNTIMES[0], BETWEEN.files, env));
}
if (jobs.length === 0) failures.push(`no test in ${paths.join(" ")}`);
// The first two take longest of all.
if (whole && !quick) jobs.unshift(shipped, machines, bundled);
await atOnce(jobs, quick ? AT_ONCE.quick : AT_ONCE.all);
await read;
await turn;
report();

/** No test takes it: nothing waits for it. */
async function bundled() {
  await check("bundle", "npm", ["run", "--silent", "bundle"]);
  await check("bundle runs", deno, ["run", "-A", "dist/shishi.js", "--version"]);
}

async function source() {
  await check("types", deno, ["check", "src", "test", ".release"]);
  await check("lint", deno, ["lint"]);
  await check("format", deno, ["fmt", "--check"]);
}

/** What is one binary's affair, not the runtimes'. The second takes what the first has made. */
async function shipped() {
  await check("release", bun, ["test/release/reproduce.ts"]);
  const runtime = { ...RUNTIMES[0], name: "binary", command: () => ["test/ship/run.sh"] };
  await tests("ship", runtime, []);
}

async function machines() {
  await check("machines", bun, ["test/release/machines.ts"]);
  // A loop of each kind, once: that it runs, not how fast anything is.
  const runs = ["--quick", "--only", "start,S1,tables,S4", "--ack", "disk", "--into", "swallow"];
  await check("benchmark", bun, ["test/bench/main.ts", ...runs]);
}

/** Begins jobs in their order: one whenever fewer than `least` run, or fewer than `most` and there is time. */
async function atOnce(jobs, { least, most }) {
  const waiting = [...jobs];
  const running = new Set();
  let before = idleNow();
  while (waiting.length > 0 || running.size > 0) {
    const now = idleNow();
    let limit = least;
    if (now.atMs - before.atMs >= LOOK_MS) {
      const spare = (now.idleMs - before.idleMs) / (now.atMs - before.atMs) / CORES;
      if (spare > SPARE) limit = Math.max(least, Math.min(most, running.size + 1));
      before = now;
    }
    while (waiting.length > 0 && running.size < limit) {
      const job = waiting.shift()();
      running.add(job);
      void job.finally(() => running.delete(job));
    }
    let timer;
    const look = new Promise((resolve) => timer = setTimeout(resolve, LOOK_MS));
    await Promise.race([...running, look]);
    clearTimeout(timer);
  }
}

/** How long all processors together have had nothing to do, since they were started. */
function idleNow() {
  const idleMs = cpus().reduce((sum, { times }) => sum + times.idle, 0);
  return { atMs: performance.now(), idleMs };
}

/**
 * Seconds of a processor that all steps took which have ended, with every process that they waited for; 0 where no
 * /proc says it. The last two of the four times that stand there, in hundredths.
 */
function usedS() {
  if (!existsSync("/proc/self/stat")) return 0;
  const [, after = ""] = readFileSync("/proc/self/stat", "utf8").split(/\) (?!.*\))/s);
  return after.split(" ").slice(13, 15).reduce((sum, ticks) => sum + Number(ticks) / 100, 0);
}

/** A step that counts as one. */
async function check(name, command, args) {
  const { code, seconds, cpuS } = await run(name, command, args);
  if (code !== 0) failures.push(`${name}: exit code ${code}`);
  results.push({
    name,
    runtime: "",
    seconds,
    cpuS,
    ...counts(code === 0 ? 1 : 0, code === 0 ? 0 : 1),
  });
}

/**
 * Test files of one room under one runtime, whose own counts count; `failed` of a runtime matches all
 * that may not happen, `named` what failed.
 */
async function tests(room, runtime, files, env = {}) {
  const [command, ...args] = runtime.command(files.map((file) => `./${file}`));
  const { code, seconds, cpuS, output } = await run(
    `${room} on ${runtime.name}`,
    command,
    args,
    env,
  );
  // The last match: a test may print something alike.
  const count = (pattern) => {
    const [, tests = 0, steps = 0] = [...output.matchAll(pattern)].at(-1) ?? [];
    return Number(tests) + Number(steps);
  };
  const passed = count(runtime.passed);
  const counted = runtime.failed.reduce((sum, pattern) => sum + count(pattern), 0);
  const failed = counted === 0 && (code !== 0 || passed === 0) ? 1 : counted;
  const named = new Set([...output.matchAll(runtime.named)].map(([, test]) => test));
  failures.push(...[...named].map((test) => `${room} on ${runtime.name}: ${test}`));
  if (failed > 0 && named.size === 0) {
    failures.push(`${room} on ${runtime.name}: exit code ${code}, ${passed} passed`);
  }
  results.push({ name: room, runtime: runtime.name, seconds, cpuS, ...counts(passed, failed) });
}

function counts(passed, failed) {
  return { passed, failed };
}

function run(name, command, args, env = {}) {
  const shown = [command.replace(`${ROOT}/`, "").replace("node_modules/.bin/", ""), ...args];
  const mine = turn;
  const say = hushed(mine);
  say(process.stdout, `\n── ${name}: ${shown.join(" ")}\n`);
  const start = Date.now();
  const running = new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd: ROOT,
      stdio: ["ignore", "pipe", "pipe"],
      env: {
        ...process.env,
        ...env,
        PATH: `${BIN}:${process.env.PATH}`,
        ...(process.stdout.isTTY ? { FORCE_COLOR: "1" } : { NO_COLOR: "1" }),
      },
    });
    let output = "";
    const pass = (stream) => (data) => {
      say(stream, data);
      output += data;
    };
    child.stdout.on("data", pass(process.stdout));
    child.stderr.on("data", pass(process.stderr));
    const limit = setTimeout(() => {
      say(process.stdout, `\n${name}: not done after ${STEP_MS / 1000} s, killed\n`);
      child.kill("SIGKILL");
    }, STEP_MS);
    let cpuS = 0;
    // What has been waited for since another step ended is this one's.
    child.once("exit", () => {
      const nowS = usedS();
      [cpuS, givenS] = [nowS - givenS, nowS];
    });
    const done = (code) => {
      clearTimeout(limit);
      const seconds = (Date.now() - start) / 1000;
      // deno-lint-ignore no-control-regex
      resolve({ code, seconds, cpuS, output: output.replace(/\x1b\[[0-9;]*m/g, "") });
    };
    child.once("error", (error) => {
      say(process.stdout, `${error.message}\n`);
      done(-1);
    });
    child.once("close", (code) => done(code));
  });
  turn = Promise.all([mine, running]);
  return running;
}

/** Writes to a stream; what comes before `turn` resolves is kept until then. */
function hushed(turn) {
  let kept = [];
  void turn.then(() => {
    for (const [stream, data] of kept) stream.write(data);
    kept = null;
  });
  return (stream, data) => void (kept === null ? stream.write(data) : kept.push([stream, data]));
}

/** Steps first, then rooms with the seconds that each runtime took for them, the longest first. */
function report() {
  const say = (line) => process.stdout.write(`${line}\n`);
  const sum = (of, key) => of.reduce((sum, result) => sum + result[key], 0);
  const row = (name, times, of) => {
    const mark = sum(of, "failed") === 0 ? "✓" : "✗";
    const tally = `${sum(of, "passed")} passed, ${sum(of, "failed")} failed`;
    const cpu = `${sum(of, "cpuS").toFixed(1)} s`.padStart(11);
    say(`${mark} ${name.padEnd(12)} ${times.padStart(18)}${cpu}   ${tally}`);
  };
  const seconds = (of) => of.length === 0 ? "" : `${sum(of, "seconds").toFixed(1)} s`;
  say("\n── summary");
  for (const result of results.filter(({ runtime }) => runtime === "")) {
    row(result.name, seconds([result]), [result]);
  }
  const tested = results.filter(({ runtime }) => runtime !== "");
  const rooms = [...new Set(tested.map(({ name }) => name))]
    .map((name) => [name, tested.filter((result) => result.name === name)]);
  const longest = rooms.sort(([, a], [, b]) => sum(b, "seconds") - sum(a, "seconds"));
  const columns = [["Bun", 9], ["Deno", 9], ["processor", 11]];
  say(`\n  ${"room".padEnd(12)} ${columns.map(([name, width]) => name.padStart(width)).join("")}`);
  for (const [name, of] of longest) {
    const each = of.some(({ runtime }) => runtime === "binary")
      ? [of]
      : RUNTIMES.map((runtime) => of.filter((result) => result.runtime === runtime.name));
    row(name, each.map((of) => seconds(of).padStart(9)).join(""), of);
  }
  for (const failure of failures) say(`  failed: ${failure}`);
  const { atMs, idleMs } = idleNow();
  const busy = 1 - (idleMs - idleAtFirst.idleMs) / (atMs - idleAtFirst.atMs) / CORES;
  const share = `${(100 * busy).toFixed(0)} % busy, ${usedS().toFixed(0)} s by these steps`;
  say(`  ${((Date.now() - began) / 1000).toFixed(0)} s in all, the processors ${share}`);
  const failed = Math.max(sum(results, "failed"), failures.length > 0 ? 1 : 0);
  process.exitCode = failed === 0 ? 0 : 1;
  say(`${sum(results, "passed")} passed, ${failed} failed`);
}

/** Whether `file` is younger than everything in `folder`. */
function isFresh(file, folder) {
  if (!existsSync(file)) return false;
  const built = statSync(file).mtimeMs;
  return readdirSync(folder, { recursive: true })
    .every((name) => statSync(join(folder, name)).mtimeMs < built);
}
