/**
 * Whole lines to stderr, in order. A line is written when the call returns, unless its reader is slow:
 * then it waits in a bounded queue that is emptied in the background and, at the end of the process,
 * for as long as the reader takes something. A reader that stops, or has gone, holds up nothing: what
 * the queue cannot take is dropped and counted.
 *
 * A pipe or a terminal is opened a second time, for that one can refuse to wait (`O_NONBLOCK`) without
 * a change for other processes that share stderr. A socket (journald's) has no second opening: there the system
 * may make this process wait, for a reader that is part of it.
 */

import { constants, fstatSync, openSync, writeSync } from "node:fs";
import process from "node:process";
import { setTimeout } from "node:timers";

export interface LineWriterTools {
  /** Bytes that were taken; throws as `writeSync` does. */
  readonly write: (bytes: Uint8Array) => number;
  /** Blocks. */
  readonly sleep: (ms: number) => void;
  /** Calls once after so long; need not keep the process alive. */
  readonly after: (ms: number, task: () => void) => void;
}

export interface LineWriter {
  /** @returns how many lines were dropped since the last one that was taken. */
  write(line: string): number;
  /** Empties the queue, waiting for a reader that is slow; not for long. */
  drain(): void;
}

const QUEUE_BYTES = 1024 * 1024;
const AGAIN_MS = 20;
/** At the end: with a reader that takes nothing, and with one that takes a little now and then. */
const PATIENCE_MS = 1_000;
const MOST_PATIENCE_MS = 5_000;
const PAUSE_MS = 2;

export function createLineWriter(tools: LineWriterTools): LineWriter {
  const encoder = new TextEncoder();
  const queue: Uint8Array[] = [];
  let queuedBytes = 0;
  let dropped = 0;
  let waiting = false;

  /** Writes what is taken without waiting; whether anything was. */
  function push(): boolean {
    let progress = false;
    while (queue.length > 0) {
      const first = queue[0]!;
      let taken: number;
      try {
        taken = tools.write(first);
      } catch (error) {
        if ((error as { code?: unknown }).code === "EAGAIN") break;
        // Closed, or broken: these will never be read.
        dropped += queue.length;
        queue.length = queuedBytes = 0;
        break;
      }
      progress = true;
      queuedBytes -= taken;
      if (taken === first.length) queue.shift();
      else queue[0] = first.subarray(taken);
    }
    return progress;
  }

  function later(): void {
    if (waiting || queue.length === 0) return;
    waiting = true;
    tools.after(AGAIN_MS, () => {
      waiting = false;
      push();
      later();
    });
  }

  return {
    write(line) {
      const bytes = encoder.encode(line);
      if (queue.length > 0) push();
      if (queuedBytes > 0 && queuedBytes + bytes.length > QUEUE_BYTES) {
        dropped++;
        return 0;
      }
      const missing = dropped;
      dropped = 0;
      queue.push(bytes);
      queuedBytes += bytes.length;
      push();
      later();
      return missing;
    },
    drain() {
      let idleMs = 0;
      for (let ms = 0; ms < MOST_PATIENCE_MS && idleMs < PATIENCE_MS; ms += PAUSE_MS) {
        idleMs = push() ? 0 : idleMs + PAUSE_MS;
        if (queue.length === 0) return;
        tools.sleep(PAUSE_MS);
      }
    },
  };
}

const cell = new Int32Array(new SharedArrayBuffer(4));
let writer: LineWriter | null = null;

/** A line to this process's stderr; how many before it were dropped. */
export function writeStderr(line: string): number {
  writer ??= stderrWriter();
  return writer.write(line);
}

function stderrWriter(): LineWriter {
  const file = secondOpening();
  const made = createLineWriter({
    write: (bytes) => writeSync(file, bytes),
    sleep: (ms) => void Atomics.wait(cell, 0, 0, ms),
    after: (ms, task) => void setTimeout(task, ms).unref(),
  });
  process.on("exit", () => made.drain());
  return made;
}

/** Stderr, opened so that a write never waits; stderr as it is where that cannot be had. */
function secondOpening(): number {
  const { O_NOCTTY, O_NONBLOCK, O_WRONLY } = constants;
  try {
    const stat = fstatSync(2);
    if (!stat.isFIFO() && !stat.isCharacterDevice()) return 2;
    return openSync("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY);
  } catch {
    return 2;
  }
}
