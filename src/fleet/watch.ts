/**
 * `shishi status --watch`: the table of the fleet, again every two seconds until it is ended. On a
 * terminal it is drawn over in place, elsewhere appended. A NATS that goes away is waited for: a fleet is
 * looked at when there is trouble.
 */

import { sleep } from "../kernel/time.ts";
import type { Wire } from "../kernel/nats.ts";
import type { Answer } from "../remote/protocol.ts";
import { collectors, createRegion, type Region, statusTable } from "./screen.ts";
import {
  byName,
  fewWarnings,
  type FleetIo,
  pollStatus,
  reach,
  showJson,
  warnOfNamesakes,
} from "./talk.ts";

const ROUND_MS = 2_000;
const AGAIN_MS = 1_000;
const MAX_WARNED = 100;

/**
 * @param subject of `status` for the target.
 * @returns the exit code: 0 once it is ended, 1 when NATS was never reached.
 */
export async function watchStatus(subject: string, io: FleetIo): Promise<number> {
  const region = io.screen && !io.json ? createRegion(io.screen, io.out) : null;
  const above: FleetIo = region === null
    ? io
    : { ...io, err: (line) => region.above(() => io.err(line)) };
  const show = display(subject, region, io);
  for (let times = 0; !io.signal?.aborted; times++) {
    const wire = await reach(times === 0 ? io : { ...io, err: () => {} });
    if (wire === null && times === 0) return io.signal?.aborted ? 0 : 1;
    if (wire === null) await sleep(io.clock, AGAIN_MS, io.signal);
    else await watchOver(wire, subject, show, above);
  }
  return 0;
}

type Show = (fleet: readonly Answer[], server: string) => void;

/** Until the connection ends. */
async function watchOver(wire: Wire, subject: string, show: Show, io: FleetIo): Promise<void> {
  const warn = fewWarnings(io);
  const view = new View();
  const warned = new Set<string>();
  const end = () => void wire.close();
  io.signal?.addEventListener("abort", end);
  if (io.signal?.aborted) end();
  const stopPolling = pollStatus(wire, subject, ROUND_MS, io, {
    answer(answer, round) {
      if (!answer.ok) return warnOnce(`${answer.name}: ${answer.error}`);
      if (io.json) showJson(answer, io, warn);
      else view.add(answer, round);
    },
    round(round) {
      if (io.json) return;
      const fleet = view.at(round);
      warnOfNamesakes(fleet, { ...io, err: warnOnce });
      show(fleet, wire.server);
    },
    warning: warn,
  });
  const why = await wire.closed;
  stopPolling();
  io.signal?.removeEventListener("abort", end);
  await wire.close();
  if (!io.signal?.aborted) io.err(`connection to NATS lost (${why}), trying again`);

  /** The same again every round would bury the table. */
  function warnOnce(what: string): void {
    if (warned.has(what) || warned.size >= MAX_WARNED) return;
    warned.add(what);
    warn(what);
  }
}

function display(subject: string, region: Region | null, io: FleetIo): Show {
  let shown = false;
  return (fleet, server) => {
    const time = new Date(io.clock.nowMs()).toISOString().slice(11, 19);
    const head = fleet.length === 0
      ? `${time}Z  no collector answers on ${subject} at ${server}`
      : `${time}Z  ${summary(fleet)}`;
    const lines = [head, ...(fleet.length === 0 ? [] : statusTable(fleet, io.color === true))];
    if (region !== null) return region.draw(lines);
    if (shown) io.out("");
    shown = true;
    for (const line of lines) io.out(line);
  };
}

/** `50 collectors: 48 running, 2 degraded; 1234 rows held`. */
function summary(fleet: readonly Answer[]): string {
  const states = new Map<string, number>();
  let held = 0;
  for (const { state, ledger } of fleet) {
    states.set(state, (states.get(state) ?? 0) + 1);
    held += ledger.held;
  }
  const parts = [...states].sort(([a], [b]) => (a < b ? -1 : 1)).map(([state, n]) =>
    `${n} ${state}`
  );
  return `${collectors(fleet.length)}: ${parts.join(", ")}; ${held} rows held`;
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

/** The fleet over time: what each collector said last, and which have fallen silent. */
class View {
  /** By name and then by instance; where that is not known, a number among its namesakes. */
  readonly #names = new Map<string, Map<string, Entry>>();
  #size = 0;

  add(answer: Answer, round: number): void {
    const { name, instance } = answer;
    const namesakes = this.#names.get(name) ?? new Map<string, Entry>();
    const key = instance === "" ? freeNumber(namesakes, round) : instance;
    if (key === null) return;
    const before = namesakes.get(key);
    if (before === undefined) {
      if (this.#size >= MAX_COLLECTORS || namesakes.size >= MAX_NAMESAKES) return;
      this.#size++;
    } else if (before.round > round) return;
    namesakes.set(key, { answer, round });
    this.#names.set(name, namesakes);
  }

  /**
   * All of them at the end of a round, by group and id. One that did not answer for `SILENT_ROUNDS` has
   * the state `silent`, and is forgotten after `FORGET_ROUNDS`, or once another process speaks for its
   * name: then it has been started again.
   */
  at(round: number): Answer[] {
    const all: Answer[] = [];
    for (const [name, namesakes] of this.#names) {
      const lastRound = Math.max(...[...namesakes.values()].map((entry) => entry.round));
      for (const [key, entry] of namesakes) {
        const missed = round - entry.round;
        if (entry.round < lastRound || missed >= FORGET_ROUNDS) {
          namesakes.delete(key);
          this.#size--;
        } else {
          all.push(missed >= SILENT_ROUNDS ? { ...entry.answer, state: "silent" } : entry.answer);
        }
      }
      if (namesakes.size === 0) this.#names.delete(name);
    }
    return all.sort(byName);
  }
}

/** The first number that has not answered in this round. */
function freeNumber(namesakes: ReadonlyMap<string, Entry>, round: number): string | null {
  for (let number = 1; number <= MAX_NAMESAKES; number++) {
    const entry = namesakes.get(`#${number}`);
    if (entry === undefined || entry.round < round) return `#${number}`;
  }
  return null;
}
