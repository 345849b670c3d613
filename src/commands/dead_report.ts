/** What `shishi dead replay` says while it works and when it is done. */

import { type ReplayIo, replayTable, Totals } from "../dead/replay.ts";
import type { Clock } from "../contracts.ts";

export interface ReportIo extends Omit<ReplayIo, "give" | "progress" | "wanted"> {
  /** Only letters with this code; null = all. */
  readonly code: number | null;
  readonly give: (
    options: { readonly waiting: (why: string) => void },
  ) => ReplayIo["give"];
  readonly clock: Clock;
  /** stderr is a terminal: progress is one line that changes. */
  readonly terminal: boolean;
  /** To stderr, as it is. */
  readonly write: (text: string) => void;
  readonly out: (line: string) => void;
}

/** Elsewhere than on a terminal, so often a line tells how far it is. */
const TELL_MS = 2_000;
const REASONS = 10;
const CLEAR = "\r\x1b[K";

/** @returns the exit code: 0 when every letter's row is stored. Rejects with the disk's error. */
export async function replayTables(tables: readonly string[], io: ReportIo): Promise<number> {
  const of = new Map<string, number>();
  for (const table of tables) of.set(table, await countLetters(table, io));
  const total = [...of.values()].reduce((sum, letters) => sum + letters, 0);
  if (total === 0) {
    io.out("no dead letters to replay");
    return 0;
  }
  const totals = new Totals();
  let toldAtMs = io.clock.monotonicMs();
  let waitingFor = "";
  const progress = (table: string, why = "") => {
    const line = `${table}: ${totals.stored} of ${total} stored, ${totals.dead} dead again` +
      (why === "" ? "" : ` (waiting: ${why})`);
    if (io.terminal) {
      io.write(`${CLEAR}${line}`);
      return;
    }
    const nowMs = io.clock.monotonicMs();
    if (why === waitingFor && nowMs - toldAtMs < TELL_MS) return;
    waitingFor = why;
    toldAtMs = nowMs;
    io.write(`${line}\n`);
  };
  const err = (line: string) => {
    if (io.terminal) io.write(CLEAR);
    io.err(line);
  };

  let goOn = true;
  for (const [table, letters] of of) {
    if (letters === 0) continue;
    if (!goOn) {
      totals.unsent += letters;
      continue;
    }
    const before = totals.stored + totals.dead + totals.unsent;
    const give = io.give({ waiting: (why) => progress(table, why) });
    const wanted = ({ code }: { readonly code: number }) => io.code === null || code === io.code;
    goOn = await replayTable(table, { ...io, wanted, give, progress, err }, totals);
    // A table that could not be worked on at all.
    if (totals.stored + totals.dead + totals.unsent === before) totals.unsent += letters;
  }
  if (io.terminal) io.write(CLEAR);
  for (const line of linesOf(totals)) io.out(line);
  return totals.dead + totals.unsent === 0 ? 0 : 1;
}

async function countLetters(table: string, { letterbox, code }: ReportIo): Promise<number> {
  let letters = 0;
  await letterbox.visit(table, (letter) => {
    if (code === null || letter.code === code) letters++;
  });
  return letters;
}

function linesOf({ stored, dead, unsent, reasons }: Totals): string[] {
  const most = [...reasons].sort(([, m], [, n]) => n - m);
  const lines = [`${stored} stored`, `${dead} dead again`];
  for (const [reason, rows] of most.slice(0, REASONS)) {
    lines.push(`  ${rows} × ${reason.replace(/\p{Cc}+/gu, " ")}`);
  }
  if (most.length > REASONS) lines.push(`  and ${most.length - REASONS} more reasons`);
  return [...lines, `${unsent} could not be sent`];
}
