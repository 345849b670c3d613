/**
 * A process of its own that takes the lock of the folder it is given, by the kernel or by the file's
 * name, says what came of it, and stays until its input ends. With a third word it starts a child first,
 * which outlives it.
 */

import { spawn } from "node:child_process";
import process from "node:process";
import { systemClock } from "../../src/kernel/time.ts";
import { openFlock } from "../../src/runtime/libc.ts";
import { takeLock } from "../../src/spool/lock.ts";

const [dataDir = "", by, child] = process.argv.slice(2);
const taken = await takeLock(dataDir, {
  clock: systemClock,
  ...(by === "kernel" ? { flock: openFlock } : {}),
});
if (child !== undefined) {
  spawn("sleep", [child], { detached: true, stdio: "ignore" }).unref();
}
console.log("problem" in taken ? taken.problem : "taken");
process.stdin.resume().on("end", () => process.exit());
