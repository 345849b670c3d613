/**
 * How many cases a property is tried with, and a model's test. Each run of the tests has other cases; `SHISHI_ROUNDS=10`
 * tries ten times as many in one, for a night. Deno has a few: its engine is another one, the code is not.
 */
import process from "node:process";
import { ON_BUN } from "./shishi.ts";

const TIMES = Number(process.env.SHISHI_ROUNDS ?? 1) * (ON_BUN ? 1 : 0.3);

/** @param cases on Bun, unless `SHISHI_ROUNDS` wants more. @returns how many there are to be, at least one. */
export function rounds(cases: number): number {
  return Math.max(1, Math.ceil(cases * TIMES));
}
