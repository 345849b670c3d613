/**
 * The dead letters of a running collector, for those who ask over HTTP. It looks at them without a
 * lock; a replay takes the lock that `shishi dead` takes too, so that one at a time changes letters,
 * and gives them to the very collector that it is part of. Which letters go together is written down
 * before they are sent, so a replay that is broken off, here or there, is gone on with by the next.
 */

import { existsSync } from "node:fs";
import type { Clock, DeadLetters, Log, Replaying, Shape } from "../contracts.ts";
import type { FileParts, Files } from "../spool/files.ts";
import { giveLetters, type Given, type Write, type Written } from "./give.ts";
import { deadFolder } from "../spool/data_dir.ts";
import { createLetterbox } from "./letterbox.ts";
import { type Letter, letterId } from "./letter.ts";
import { takeLock } from "../spool/lock.ts";
import { createNewestLetters } from "./newest.ts";
import { type ReplayIo, replayTable, Totals } from "./replay.ts";

export interface DeadDeskOptions {
  readonly files: Files & FileParts;
  /** The folder that `dead/` lies in. */
  readonly dataDir: string;
  readonly clock: Clock;
  readonly log: Log;
  /** Takes rows as `POST /events` and `POST /events/TABLE` do. */
  readonly write: (request: Request, table: string, shape: Shape) => Promise<Response>;
}

/** One replay takes so long at most, and the answer of the collector that it waits for. */
const WITHIN_MS = 25_000;
const REASONS = 10;
const STOPPING = "the collector is stopping";
const BUSY = "a replay or a purge is under way; try again when it has ended";

export function createDeadDesk(options: DeadDeskOptions): DeadLetters & {
  /** A replay under way goes no further than the rows that it has given. */
  close(): void;
} {
  const { files, dataDir, clock, log, write } = options;
  const letterbox = createLetterbox(options);
  const { newest } = createNewestLetters(options);
  const folder = deadFolder(dataDir);
  let closed = false;

  /** As a client would, but from within. */
  async function writeNow({ path, headers, body }: Write, { table, shape }: Letter) {
    if (closed) return { error: STOPPING, sent: false };
    const answer = await write(
      new Request(`http://localhost${path}`, {
        method: "POST",
        headers: { ...headers, "content-length": String(body.length) },
        body: body as BodyInit,
      }),
      table,
      shape,
    );
    const { status } = answer;
    return { status, headers: Object.fromEntries(answer.headers), text: await answer.text() };
  }

  async function replay(
    wanted: Parameters<DeadLetters["replay"]>[0],
    signal: AbortSignal,
  ): Promise<Replaying> {
    const ids = wanted.ids === null ? null : new Set(wanted.ids);
    const untilMs = clock.monotonicMs() + WITHIN_MS;
    const totals = new Totals();
    const problems = new Set<string>();
    const stopped = () =>
      closed
        ? STOPPING
        : signal.aborted
        ? "nobody waits for the answer any more"
        : clock.monotonicMs() >= untilMs
        ? `it has taken ${WITHIN_MS / 1000} s`
        : null;
    const give: ReplayIo["give"] = async (letters, id, again): Promise<Given> => {
      const problem = stopped();
      if (problem !== null) return { kind: "unsent", of: "collector", problem };
      const timeoutMs = untilMs - clock.monotonicMs();
      return await giveLetters(
        {
          write: (rows): Promise<Written> => writeNow(rows, letters[0]!),
          to: "the collector",
          timeoutMs,
          clock,
          waiting: () => {},
        },
        letters,
        id,
        again,
      );
    };
    const io: ReplayIo = {
      files,
      dataDir,
      letterbox,
      wanted: (letter: Letter) => ids?.has(letterId(letter)) ?? true,
      give,
      progress: () => {},
      // Where the folder lies is nobody's business out there.
      err: (line) => void problems.add(line.replaceAll(dataDir, "DATA-DIR")),
    };
    const tables = await letterbox.tables();
    for (const table of tables.filter((name) => wanted.table === null || name === wanted.table)) {
      if (!await replayTable(table, io, totals)) break;
    }
    const { stored, dead, unsent } = totals;
    log.info("dead letters replayed", { stored, dead, left: unsent });
    const most = [...totals.reasons].sort(([, m], [, n]) => n - m).slice(0, REASONS);
    const reasons = most.map(([reason, letters]) => ({ reason, letters }));
    return { stored, dead, left: unsent, reasons, problems: [...problems].slice(0, REASONS) };
  }

  return {
    newest,
    async replay(wanted, signal) {
      // Otherwise the lock would make the folder.
      if (!existsSync(folder)) return NOTHING;
      const lock = await takeLock(folder, { clock });
      if ("problem" in lock) {
        if (lock.busy) return { busy: BUSY };
        throw new Error(lock.problem);
      }
      try {
        return await replay(wanted, signal);
      } finally {
        await lock.release();
      }
    },
    close() {
      closed = true;
    },
  };
}

const NOTHING: Replaying = { stored: 0, dead: 0, left: 0, reasons: [], problems: [] };
