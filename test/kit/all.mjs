/**
 * `npm test [-- PATH …]`: every check of the repository; with paths only those test files, under both
 * runtimes. The last line of stdout is `N passed, N failed`; the exit code is
 * 1 when anything failed, was skipped, or when a runner found no test.
 */
import { spawn } from "node:child_process";
import { existsSync, readdirSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "../..");
const BIN = join(ROOT, "node_modules/.bin");
const BINARY = join(ROOT, "dist/shishi");
const ONE_TEST_MS = 60_000;
/** Of one step; a test that hangs for ever must not hang the run. */
const STEP_MS = 16 * 60_000;

/** How Bun tells what became of tests. */
const ON_BUN = {
  passed: /^ *(\d+) pass$/gm,
  failed: [/^ *(\d+) fail$/gm, /^ *(\d+) errors?$/gm, /^ *(\d+) skip$/gm, /^ *(\d+) todo$/gm],
  named: /^\(fail\) (.+)$/gm,
};

const paths = process.argv.slice(2).map((path) => `./${path.replace(/^\.\//, "")}`);
const began = Date.now();
const summary = [];
/** What failed, by name, told once more at the end: a log is often read from there. */
const failures = [];

const [deno, bun] = [join(BIN, "deno"), join(BIN, "bun")];
if (paths.length === 0) {
  await check("lint", deno, ["lint"]);
  await check("format", deno, ["fmt", "--check"]);
  await check("types", deno, ["check", "src", "test", ".release"]);
  await check("binary", "npm", ["run", "--silent", "build"]);
  await check("binary runs", BINARY, ["--version"]);
  await check("bundle", "npm", ["run", "--silent", "bundle"]);
  await check("bundle runs", deno, ["run", "-A", "dist/shishi.js", "--version"]);
} else if (!isFresh(BINARY, join(ROOT, "src"))) {
  await check("binary", "npm", ["run", "--silent", "build"]);
}
const files = paths.length === 0 ? ["./test/"] : paths;
// Side by side: most of a test is waiting.
const limit = ["--timeout", String(ONE_TEST_MS)];
const onBun = tests("tests on Bun", bun, ["test", ...limit, ...files], ON_BUN);
const onDeno = tests("tests on Deno", deno, ["test", "-A", "--no-check", ...files], {
  // The tests of a `describe` are steps of one test here.
  passed: /\| (\d+) passed(?: \((\d+) steps?\))?/g,
  failed: [/\| (\d+) failed(?: \((\d+) steps?\))?/g, /\| (\d+) ignored(?: \((\d+) steps?\))?/g],
  named: /^(.+ \.\.\. FAILED.*)$/gm,
}, onBun);
const suites = Promise.all([onBun, onDeno]);
await Promise.all([suites, paths.length === 0 ? once(suites) : null]);
report();

/** What is one binary's affair, not the runtimes'. */
async function once(turn) {
  await check("release", bun, ["test/release/reproduce.ts"], turn);
  await check("machines", bun, ["test/release/machines.ts"], turn);
  await tests("ship", "test/ship/run.sh", [], ON_BUN, turn);
  await check("benchmark", bun, ["test/bench/main.ts", "--quick"], turn);
}

/** A step that counts as one. */
async function check(name, command, args, turn) {
  const { code, seconds } = await run(name, command, args, turn);
  if (code !== 0) failures.push(`${name}: exit code ${code}`);
  summary.push({ name, seconds, passed: code === 0 ? 1 : 0, failed: code === 0 ? 0 : 1 });
}

/**
 * A runner, whose own counts count; `failed` holds all that may not happen, `named` what failed. It
 * starts at once, and is heard when it is its turn.
 */
async function tests(name, command, args, patterns, turn) {
  const { code, seconds, output } = await run(name, command, args, turn);
  // The last match: a test may print something alike.
  const count = (pattern) => {
    const [, tests = 0, steps = 0] = [...output.matchAll(pattern)].at(-1) ?? [];
    return Number(tests) + Number(steps);
  };
  const passed = count(patterns.passed);
  const counted = patterns.failed.reduce((sum, pattern) => sum + count(pattern), 0);
  const failed = counted === 0 && (code !== 0 || passed === 0) ? 1 : counted;
  const named = new Set([...output.matchAll(patterns.named)].map(([, test]) => test));
  failures.push(...[...named].map((test) => `${name}: ${test}`));
  summary.push({ name, seconds, passed, failed });
}

function run(name, command, args, turn = null) {
  const shown = [command.replace(`${ROOT}/`, "").replace("node_modules/.bin/", ""), ...args];
  const say = hushed(turn);
  say(process.stdout, `\n── ${name}: ${shown.join(" ")}\n`);
  const start = Date.now();
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd: ROOT,
      stdio: ["ignore", "pipe", "pipe"],
      env: {
        ...process.env,
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
    const done = (code) => {
      clearTimeout(limit);
      const seconds = (Date.now() - start) / 1000;
      // deno-lint-ignore no-control-regex
      resolve({ code, seconds, output: output.replace(/\x1b\[[0-9;]*m/g, "") });
    };
    child.once("error", (error) => {
      say(process.stdout, `${error.message}\n`);
      done(-1);
    });
    child.once("close", (code) => done(code));
  });
}

/** Writes to a stream; what comes before `turn` resolves is kept until then. */
function hushed(turn) {
  let kept = turn === null ? null : [];
  void turn?.then(() => {
    for (const [stream, data] of kept) stream.write(data);
    kept = null;
  });
  return (stream, data) => void (kept === null ? stream.write(data) : kept.push([stream, data]));
}

function report() {
  process.stdout.write("\n── summary\n");
  for (const { name, seconds, passed, failed } of summary) {
    const mark = failed === 0 ? "✓" : "✗";
    const counts = `${passed} passed, ${failed} failed`;
    process.stdout.write(
      `${mark} ${name.padEnd(14)} ${counts.padEnd(24)} ${seconds.toFixed(1)} s\n`,
    );
  }
  for (const failure of failures) process.stdout.write(`  failed: ${failure}\n`);
  const total = (key) => summary.reduce((sum, step) => sum + step[key], 0);
  process.stdout.write(`  ${((Date.now() - began) / 1000).toFixed(0)} s in all\n`);
  process.exitCode = total("failed") === 0 ? 0 : 1;
  process.stdout.write(`${total("passed")} passed, ${total("failed")} failed\n`);
}

/** Whether `file` is younger than everything in `folder`. */
function isFresh(file, folder) {
  if (!existsSync(file)) return false;
  const built = statSync(file).mtimeMs;
  return readdirSync(folder, { recursive: true })
    .every((name) => statSync(join(folder, name)).mtimeMs < built);
}
