/**
 * `shishi status --watch`: the table of the fleet, again every two seconds until somebody ends it.
 * On a terminal it is drawn over in place, elsewhere appended. A NATS that goes away is waited for:
 * one looks at a fleet when there is trouble.
 */

import type { Answer } from "../remote/answer.ts";
import { pollStatus } from "../remote/poller.ts";
import { subjectFor } from "../remote/subjects.ts";
import { statusTable } from "../remote/table.ts";
import type { Wire } from "../remote/wire.ts";
import { collectors, fewWarnings, showJson, warnOfNamesakes } from "./fleet.ts";
import { reach } from "./reach.ts";
import type { RemoteIo } from "./remote.ts";
import { createRegion, type Region } from "./screen.ts";
import { createView } from "./view.ts";

const ROUND_MS = 2_000;
const AGAIN_MS = 1_000;
const MAX_WARNED = 100;

/** @returns the exit code: 0 once it is ended, 1 when NATS was never reached, 2 for a wrong target. */
export async function watchFleet(io: RemoteIo): Promise<number> {
  const where = subjectFor(io.subject, "status", io.target);
  if ("problem" in where) {
    io.err(where.problem);
    return 2;
  }
  const region = io.screen && !io.json ? createRegion(io.screen, io.out) : null;
  const above: RemoteIo = region === null
    ? io
    : { ...io, err: (line) => region.above(() => io.err(line)) };
  const show = display(where.subject, region, io);
  for (let times = 0; !io.signal?.aborted; times++) {
    const wire = await reach(times === 0 ? io : { ...io, err: () => {} });
    if (wire === null && times === 0) return io.signal?.aborted ? 0 : 1;
    if (wire === null) await aMoment(io);
    else await watchOver(wire, where.subject, show, above);
  }
  return 0;
}

type Show = (fleet: readonly Answer[], server: string) => void;

/** Until the connection ends. */
async function watchOver(wire: Wire, subject: string, show: Show, io: RemoteIo): Promise<void> {
  const warn = fewWarnings(io);
  const view = createView();
  const warned = new Set<string>();
  const poll = { subject, secret: io.controlSecret ?? null, everyMs: ROUND_MS };
  const end = () => void wire.close();
  io.signal?.addEventListener("abort", end);
  if (io.signal?.aborted) end();
  const stopPolling = pollStatus(wire, poll, io.clock, {
    onAnswer(answer, heard) {
      if (!answer.ok) return warnOnce(`${answer.group}.${answer.id}: ${answer.error}`);
      if (io.json) showJson(heard.payload, io, warn);
      else view.add(answer, heard);
    },
    onRound(round) {
      if (io.json) return;
      const fleet = view.at(round);
      warnOfNamesakes(fleet, { ...io, err: warnOnce });
      show(fleet, wire.server);
    },
    onWarning: warn,
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

function display(subject: string, region: Region | null, io: RemoteIo): Show {
  let shown = false;
  return (fleet, server) => {
    const time = new Date(io.clock.nowMs()).toISOString().slice(11, 19);
    const head = fleet.length === 0
      ? `${time}Z  nobody answers on ${subject} at ${server}`
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

function aMoment(io: RemoteIo): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      cancel();
      io.signal?.removeEventListener("abort", end);
      resolve();
    };
    const cancel = io.clock.after(AGAIN_MS, end);
    io.signal?.addEventListener("abort", end);
  });
}
