/**
 * A process of its own that takes the lock of the folder it is given, says what came of it, and stays
 * until its input ends.
 */

import process from "node:process";
import { takeLock } from "../../src/spool/lock.ts";
import { systemClock } from "../../src/runtime/clock.ts";

const taken = await takeLock(process.argv[2]!, { clock: systemClock });
console.log("problem" in taken ? taken.problem : "taken");
process.stdin.resume().on("end", () => process.exit());
