/**
 * `npm run soak`: tests that take as long as they are given, and that a release is judged by. Each ends by
 * itself, with 0 when all that was acknowledged is there, once, and else with 1 and what is not.
 *
 *     npm run soak -- --minutes 10      everything at random
 *     npm run soak -- --rounds 1000     kill -9 of the collector, over and over
 *     npm run soak -- --power           power cuts of the whole machine
 *
 * Beside each `--seed N`, which decides what goes wrong and in which order; the machine decides the rest.
 */
import process from "node:process";
import { parseArgs } from "node:util";
import { seeded } from "../kit/faulty_bytes.ts";

const { values } = parseArgs({
  options: {
    minutes: { type: "string" },
    rounds: { type: "string" },
    power: { type: "boolean", default: false },
    cuts: { type: "string", default: "60" },
    "file-system": { type: "string", default: "ext4,xfs,btrfs" },
    seed: { type: "string", default: String(Date.now() % 1_000_000_000) },
  },
});

/** A function, because a failure is told as one. */
async function main(): Promise<number> {
  const { minutes, rounds, power, cuts, "file-system": systems } = values;
  const seed = Number(values.seed);
  if (!Number.isSafeInteger(seed)) return usage("--seed wants a whole number");
  const random = seeded(seed);
  if (power) {
    if (!isCount(cuts)) return usage("--cuts wants a whole number above 0");
    const { soakPower } = await import("./soak_power.ts");
    return await soakPower({ systems: systems.split(","), cuts: Number(cuts), seed });
  }
  if (rounds !== undefined) {
    if (!isCount(rounds)) return usage("--rounds wants a whole number above 0");
    const { soakRounds } = await import("./soak_rounds.ts");
    return await soakRounds({ rounds: Number(rounds), seed, random });
  }
  if (!(Number(minutes ?? 10) > 0)) return usage("--minutes wants a number above 0");
  const { soakMinutes } = await import("./soak_minutes.ts");
  return await soakMinutes({ minutes: Number(minutes ?? 10), seed, random });
}

function isCount(text: string): boolean {
  return Number.isSafeInteger(Number(text)) && Number(text) > 0;
}

function usage(problem: string): number {
  console.error(`soak: ${problem}`);
  return 2;
}

process.exit(await main());
