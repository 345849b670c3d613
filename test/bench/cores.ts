/**
 * Who runs where, and what it costs: one core for the measured server, another for the load and the
 * sink, with `taskset`; CPU time and memory as the kernel counts them.
 */
import { spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import process from "node:process";
import { startGuard } from "../servers/process.ts";

/** The cores that this process may use, from a list such as `0-3,8`. */
function allowed(): number[] {
  if (process.platform !== "linux") return [0];
  const list = readFileSync("/proc/self/status", "utf8").match(/Cpus_allowed_list:\s*(\S+)/)?.[1];
  return (list ?? "0").split(",").flatMap((range) => {
    const [first, last] = range.split("-").map(Number) as [number, number?];
    return Array.from({ length: (last ?? first) - first + 1 }, (_, at) => first + at);
  });
}

const all = allowed();
/** On a machine with one core they share it. */
export const CORES = { server: all[0]!, load: all[1] ?? all[0]!, usable: all.length };

export type Core = "server" | "load";

/** A command line that runs there only; the process that it starts becomes the program. */
export function on(
  core: Core | "all",
  command: string,
  args: readonly string[],
): [string, string[]] {
  const list = core === "all" ? all.join(",") : String(CORES[core]);
  return ["taskset", ["-c", list, command, ...args]];
}

/** Moves a running process with all its threads. */
export async function move(pid: number, core: Core): Promise<void> {
  await run("taskset", ["-acp", String(CORES[core]), String(pid)], { withinMs: 10_000 });
}

const running = new Set<() => Promise<void>>();

/** Ends what `run` has under way. */
export async function endRuns(): Promise<void> {
  await Promise.all([...running].map((end) => end()));
}

/** Runs a program that ends by itself; its stdout. Throws with its stderr when it fails or hangs. */
export async function run(
  command: string,
  args: readonly string[],
  { withinMs }: { readonly withinMs: number },
): Promise<string> {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], detached: true });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => stdout += text);
  child.stderr.setEncoding("utf8").on("data", (text: string) => stderr += text);
  const ended = new Promise<string | null>((resolve) => {
    child.once("error", (problem) => resolve(problem.message));
    child.once("close", (code, signal) => resolve(code === 0 ? null : `${signal ?? code}`));
  });
  // No folder to delete: an empty name is none.
  const guard = child.pid === undefined ? null : startGuard(child.pid, "");
  const end = async () => {
    child.kill("SIGKILL");
    await ended;
  };
  running.add(end);
  const limit = setTimeout(() => void end(), withinMs);
  const problem = await ended;
  clearTimeout(limit);
  running.delete(end);
  await guard?.end();
  if (problem !== null) throw new Error(`${command} ${args.join(" ")}: ${problem}\n${stderr}`);
  return stdout;
}

/** Clock ticks a second in /proc; 100 on every Linux that is not built specially. */
const TICKS = 100;

/** User and system time of a process with all its threads, ended ones too. */
export function cpuSeconds(pid: number): number {
  const threads = readdirSync(`/proc/${pid}/task`);
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  // After the name, which may hold anything, in brackets.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const ticks = (Number(fields[11]) + Number(fields[12])) / TICKS;
  // In nanoseconds, but of living threads only.
  const living = threads.reduce((sum, thread) => sum + nanoseconds(pid, thread), 0) / 1e9;
  return Math.max(ticks, living);
}

function nanoseconds(pid: number, thread: string): number {
  try {
    return Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "utf8").split(" ")[0]);
  } catch {
    return 0; // It has just ended.
  }
}

/** Memory of a process: resident at this moment, and at most so far. */
export function residentBytes(pid: number): { readonly bytes: number; readonly peakBytes: number } {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const kib = (name: string) => Number(status.match(new RegExp(`${name}:\\s*(\\d+) kB`))?.[1]);
  return { bytes: kib("VmRSS") * 1024, peakBytes: kib("VmHWM") * 1024 };
}

/** Of a process, that went to a disk, or will. */
export function writtenBytes(pid: number): number {
  return Number(readFileSync(`/proc/${pid}/io`, "utf8").match(/^write_bytes: (\d+)/m)?.[1] ?? NaN);
}

/** Ticks that a core has been busy with anything, and in all, since the machine started. */
export function coreTicks(core: Core): { readonly busy: number; readonly all: number } {
  const line = readFileSync("/proc/stat", "utf8").split("\n")
    .find((line) => line.startsWith(`cpu${CORES[core]} `)) ?? "";
  const ticks = line.split(/\s+/).slice(1, 9).map(Number);
  const sum = ticks.reduce((total, tick) => total + tick, 0);
  // The fourth and fifth are idle and waiting for a disk.
  return { busy: sum - (ticks[3] ?? 0) - (ticks[4] ?? 0), all: sum };
}

/** From 0 to 1. */
export function busySince(core: Core, before: { busy: number; all: number }): number {
  const now = coreTicks(core);
  return (now.busy - before.busy) / Math.max(1, now.all - before.all);
}

/** The program that runs this. */
export const RUNTIME = process.execPath;
