/**
 * The control subjects, broad to narrow: `PREFIX.COMMAND`, `PREFIX.COMMAND.GROUP`,
 * `PREFIX.COMMAND.GROUP.ID`. Pure. A collector listens to each of its subjects by its full name and
 * never by a wildcard, so that one published command reaches it exactly once.
 */

import type { Command } from "../contracts.ts";

/** Every command, in the order in which help shows them. */
export const COMMANDS: readonly Command[] = ["status", "flush", "pause", "resume", "stop"];

/** What a group and an id may consist of; settings turn everything else into `-`. */
const NAME = /^[A-Za-z0-9_-]+$/;

/** Subjects that one collector obeys, each with the command that it stands for. */
export function subjectsOf(
  prefix: string,
  group: string,
  id: string,
): ReadonlyMap<string, Command> {
  const subjects = new Map<string, Command>();
  for (const command of COMMANDS) {
    subjects.set(`${prefix}.${command}`, command);
    subjects.set(`${prefix}.${command}.${group}`, command);
    subjects.set(`${prefix}.${command}.${group}.${id}`, command);
  }
  return subjects;
}

/** Where a collector tells each change of its state. */
export function eventSubject(prefix: string, group: string, id: string): string {
  return `${prefix}.event.${group}.${id}`;
}

/**
 * Where a command for `target` (`all`, `GROUP` or `GROUP.ID`) is published.
 * @returns the subject, and whether it names one single collector; or what is wrong with the input.
 */
export function subjectFor(
  prefix: string,
  command: Command,
  target: string,
): { readonly subject: string; readonly single: boolean } | { readonly problem: string } {
  const problem = prefixProblem(prefix);
  if (problem !== null) return { problem };
  if (target === "all") return { subject: `${prefix}.${command}`, single: false };
  const names = target.split(".");
  if (names.length > 2 || !names.every((name) => NAME.test(name))) {
    const found = JSON.stringify(target);
    return {
      problem:
        `target: expected all, GROUP or GROUP.ID (letters, digits, - and _ in each), got ${found}`,
    };
  }
  return { subject: `${prefix}.${command}.${target}`, single: names.length === 2 };
}

/** Why `prefix` cannot begin a subject, or null. It may contain dots: `ops.shishi`. */
export function prefixProblem(prefix: string): string | null {
  const tokens = prefix.split(".");
  if (tokens.every((token) => /^[^\s.*>\p{Cc}]+$/u.test(token)) && !prefix.startsWith("$")) {
    return null;
  }
  const found = JSON.stringify(prefix);
  return `nats-subject: expected words joined by dots, without spaces, * or >, got ${found}`;
}
