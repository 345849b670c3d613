/**
 * The fleet over time, as `status --watch` shows it: who answered, what they said last, and who has
 * fallen silent. Pure but for its own memory.
 */

import type { Answer } from "../remote/answer.ts";
import { sorted } from "../remote/caller.ts";
import type { Heard } from "../remote/poller.ts";

export interface View {
  add(answer: Answer, heard: Pick<Heard, "round" | "instance">): void;
  /**
   * Everybody at the end of a round, by group and id. Who did not answer for `SILENT_ROUNDS` has the
   * state `silent`, and is forgotten after `FORGET_ROUNDS`, or once another process speaks for its
   * name: then it has been started again.
   */
  at(round: number): Answer[];
}

interface Entry {
  readonly answer: Answer;
  readonly round: number;
}

const SILENT_ROUNDS = 2;
const FORGET_ROUNDS = 15;
/** More than any fleet, fewer than would fill the memory. */
const MAX_COLLECTORS = 100_000;
/** Collectors of one name. */
const MAX_NAMESAKES = 100;

export function createView(): View {
  /** By name and then by instance; where that is not known, a number among its namesakes. */
  const names = new Map<string, Map<string, Entry>>();
  let size = 0;
  return {
    add(answer, { round, instance }) {
      const name = `${answer.group}.${answer.id}`;
      const namesakes = names.get(name) ?? new Map<string, Entry>();
      const key = instance === "" ? freeNumber(namesakes, round) : instance;
      if (key === null) return;
      const before = namesakes.get(key);
      if (before === undefined && (size >= MAX_COLLECTORS || namesakes.size >= MAX_NAMESAKES)) {
        return;
      }
      if (before !== undefined && before.round > round) return;
      if (before === undefined) size++;
      namesakes.set(key, { answer, round });
      names.set(name, namesakes);
    },
    at(round) {
      const all: Answer[] = [];
      for (const [name, namesakes] of names) {
        const lastRound = Math.max(...[...namesakes.values()].map((entry) => entry.round));
        for (const [key, entry] of namesakes) {
          const missed = round - entry.round;
          if (entry.round < lastRound || missed >= FORGET_ROUNDS) {
            namesakes.delete(key);
            size--;
          } else {
            all.push(missed >= SILENT_ROUNDS ? { ...entry.answer, state: "silent" } : entry.answer);
          }
        }
        if (namesakes.size === 0) names.delete(name);
      }
      return sorted(all);
    },
  };
}

/** The first number that has not answered in this round. */
function freeNumber(namesakes: ReadonlyMap<string, Entry>, round: number): string | null {
  for (let number = 1; number <= MAX_NAMESAKES; number++) {
    const entry = namesakes.get(`#${number}`);
    if (entry === undefined || entry.round < round) return `#${number}`;
  }
  return null;
}
