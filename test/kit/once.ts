/**
 * Tests of what does not differ between the runtimes, in files of which the rest does: they run on one of them,
 * as those do whose file says `Runs once: why`. Each use says why beside it, or its file does.
 */
import { describe, test } from "node:test";
import { ON_BUN } from "./shishi.ts";

type Body = () => unknown;

/** A test on one runtime. */
export function testOnce(name: string, work: () => void | Promise<void>): void;
export function testOnce(
  name: string,
  options: { readonly timeout: number },
  work: () => void | Promise<void>,
): void;
export function testOnce(name: string, ...more: [Body] | [{ timeout: number }, Body]): void {
  // deno-lint-ignore no-explicit-any
  if (ON_BUN) (test as any)(name, ...more);
}

/** Tests on one runtime. */
export function describeOnce(name: string, work: () => void): void {
  if (ON_BUN) describe(name, work);
}
