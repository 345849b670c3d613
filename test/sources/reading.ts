/** A source that reads a real broker into a disk of memory, and a load on that broker, for tests of clusters. */

import type { Broker, Log, SourceAddress, SourceStatus } from "../../src/contracts.ts";
import { createLedger } from "../../src/meter/ledger.ts";
import { systemClock } from "../../src/kernel/time.ts";
import { Source } from "../../src/sources/source.ts";
import { pause } from "../kit/wait.ts";
import { Disk, JournalIntake } from "./journal_intake.ts";
import { PlainReader } from "./plain_reader.ts";

export interface Reading {
  /** Rows, in the order in which they were synced: `{"n":1}`. */
  readonly rows: readonly string[];
  status(): SourceStatus;
  /** States that it had, with why, each once in a row. */
  readonly states: readonly string[];
  stop(): Promise<void>;
}

const silent = () => {};
const SILENT: Log = { debug: silent, info: silent, warn: silent, error: silent };

/** With `ack=disk`. */
export function startReading(address: SourceAddress, broker: Broker): Reading {
  const disk = new Disk();
  const intake = new JournalIntake(disk);
  const source = new Source({
    address: { ...address, table: "t" },
    broker,
    intake,
    reader: new PlainReader(),
    keepLetters: (letters) => intake.keepLetters(letters),
    totals: createLedger().source(address.name),
    died() {},
    eventsTable: () => "events",
    mayWrite: () => true,
    ack: () => "disk",
    clock: systemClock,
    log: SILENT,
  });
  source.start();
  const states: string[] = [];
  const looking = setInterval(() => {
    const { state, why } = source.status();
    const now = why === null ? state : `${state}: ${why}`;
    if (states.at(-1) !== now) states.push(now);
  }, 10);
  return {
    rows: disk.rows,
    states,
    status: () => source.status(),
    async stop() {
      clearInterval(looking);
      await source.stop(Promise.resolve());
    },
  };
}

export interface Load {
  /** So many numbers, from 1 on, are at the broker. */
  readonly published: number;
  /** Resolves when the last of them is. */
  stop(): Promise<void>;
}

/**
 * Numbers without end, ten at a time: what the broker does not take is sent again, so it may have some twice.
 * @param send resolves when the broker has these for good.
 */
export function startLoad(send: (bodies: readonly string[]) => Promise<unknown>): Load {
  let published = 0;
  let ends = false;
  const run = (async () => {
    while (!ends) {
      const bodies = Array.from({ length: 10 }, (_, at) => `{"n":${published + at + 1}}`);
      try {
        await send(bodies);
        published += bodies.length;
      } catch {
        await pause(50);
      }
      await pause(5);
    }
  })();
  return {
    get published() {
      return published;
    },
    async stop() {
      ends = true;
      await run;
    },
  };
}
