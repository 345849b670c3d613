/** Under what the figures came about; without it they say little. */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { cpus, release, tmpdir, totalmem } from "node:os";
import process from "node:process";
import { CORES } from "./cores.ts";
import type { Options } from "./options.ts";
import { SCENARIOS, warmupOf } from "./scenarios.ts";
import { BINARY, QUICK_ARGS } from "./subjects.ts";

export type Conditions = Readonly<Record<string, string>>;

export function conditions(options: Options): Conditions {
  const { parts, rounds, seconds, warmupSeconds, openSeconds } = options;
  const warmups = [
    ...new Set(
      SCENARIOS.filter(({ name }) => parts.includes(name))
        .map((scenario) => warmupOf(scenario, warmupSeconds)),
    ),
  ].join(" or ") || warmupSeconds;
  return {
    time: new Date().toISOString(),
    cpu: `${cpus()[0]?.model ?? "unknown"}, ${CORES.usable} usable`,
    memory: `${Math.round(totalmem() / 1024 ** 3)} GiB`,
    kernel: release(),
    "data folder on": first("stat", ["-f", "-c", "%T", tmpdir()]),
    shishi: first(BINARY, ["--version"]),
    "references on": `${process.versions.bun ? "Bun" : "Deno"} ${
      process.versions.bun ?? process.versions.deno
    }`,
    wrk: first("wrk", ["-v"]).replace(/ Copyright.*/, ""),
    cores: `server on ${CORES.server}; load and sink on ${CORES.load}`,
    runs: `${rounds} × ${seconds} s, each after ${warmups} s of warming up, the servers ` +
      `taking turns; medians; open loop ${openSeconds} s` +
      (options.quick ? `; collector with ${QUICK_ARGS.join(" ")}` : ""),
    "load average before": readFileSync("/proc/loadavg", "utf8").split(" ").slice(0, 3).join(" "),
  };
}

/** What is missing for a run; null = nothing. */
export function missing(): string | null {
  if (process.platform !== "linux") return "it reads /proc and pins with taskset: Linux only";
  for (const [program, from] of [["wrk", "wrk"], ["taskset", "util-linux"]] as const) {
    if (spawnSync(program, ["--version"], { stdio: "ignore" }).error !== undefined) {
      return `${program} is missing: sudo apt-get install ${from}`;
    }
  }
  return null;
}

/** The first line of what a program prints. */
function first(command: string, args: readonly string[]): string {
  const { stdout, stderr } = spawnSync(command, args, { encoding: "utf8" });
  return (stdout || stderr || "unknown").split("\n")[0]!.trim();
}
