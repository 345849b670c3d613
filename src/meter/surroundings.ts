/**
 * What a collector cannot count but depends on: the room on the disk of its data folder, and the time at which its
 * certificate ends. Looked at when metrics are asked for, never on the path of a row.
 */

import { statfs } from "node:fs/promises";
import type { Clock } from "../contracts.ts";
import { nodeCrypto } from "../kernel/builtins.ts";
import { within } from "../kernel/time.ts";

export interface DiskRoom {
  /** That this user may still fill. */
  readonly freeBytes: number;
  readonly sizeBytes: number;
}

export interface Surroundings {
  /** Looks at the disk; a disk that hangs is not waited for, and keeps what was seen last. Never rejects. */
  look(): Promise<void>;
  /** As seen last; null: it could not be told. */
  room(): DiskRoom | null;
  /** Epoch seconds; null: there is no certificate, or none that can be read. */
  certificateEndS(): number | null;
}

/** A scrape is given up after 10 s, usually. */
const LOOK_MS = 1000;

/**
 * @param certificate PEM, its own first, as it is served at the moment; null: plain HTTP.
 * @param measure of tests; the system's unless given.
 */
export function createSurroundings(
  { dataDir, certificate, clock, measure = roomOf }: {
    readonly dataDir: string;
    readonly certificate: () => string | null;
    readonly clock: Pick<Clock, "after">;
    readonly measure?: (folder: string) => Promise<DiskRoom>;
  },
): Surroundings {
  let room: DiskRoom | null = null;
  /** One at a time: each that hangs holds a thread. */
  let looking: Promise<void> | null = null;
  let known: { readonly pem: string; readonly endS: number | null } | null = null;

  return {
    async look() {
      looking ??= measure(dataDir)
        .then((found) => void (room = found), () => void (room = null))
        .finally(() => looking = null);
      await within(clock, LOOK_MS, looking, undefined);
    },
    room: () => room,
    certificateEndS() {
      const pem = certificate();
      if (pem === null) return null;
      if (known?.pem !== pem) known = { pem, endS: endOf(pem) };
      return known.endS;
    },
  };
}

async function roomOf(folder: string): Promise<DiskRoom> {
  const { bavail, blocks, bsize } = await statfs(folder);
  return { freeBytes: bavail * bsize, sizeBytes: blocks * bsize };
}

/** `validTo` is written as `Jan 31 12:00:00 2027 GMT`. */
function endOf(pem: string): number | null {
  try {
    const endMs = Date.parse(new (nodeCrypto().X509Certificate)(pem).validTo);
    return Number.isNaN(endMs) ? null : endMs / 1000;
  } catch {
    return null;
  }
}
