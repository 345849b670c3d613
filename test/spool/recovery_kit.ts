/** Small spools to be damaged, and what came of recovering them. */

import { Buffer } from "node:buffer";
import { type DataDir, openSpool } from "../../src/spool/data_dir.ts";
import { type FoundBatch, listSpool, type Quarantined, recover } from "../../src/spool/recovery.ts";
import { SEAL_BYTES, sealLine, segmentName } from "../../src/spool/segment.ts";
import type { Shape } from "../../src/contracts.ts";
import { type LogLine, memoryLog } from "../kit/chunks.ts";
import { FaultyFiles } from "../kit/faulty_files.ts";

export const DATA = "/data";

/** The id of a batch minted at `ms`. */
export function idAt(ms: number, last = 1): string {
  const time = ms.toString(16).padStart(12, "0");
  return `${time.slice(0, 8)}-${time.slice(8)}-7000-8000-${last.toString(16).padStart(12, "0")}`;
}

export interface Spooled {
  readonly table: string;
  readonly name: string;
  readonly path: string;
  readonly bytes: Uint8Array;
  /** Each group's rows, and where they end up with their seal. */
  readonly groups: readonly {
    readonly text: string;
    readonly start: number;
    readonly end: number;
  }[];
}

export function spooled(
  table: string,
  ms: number,
  groups: readonly (readonly object[])[],
  options: { shape?: Shape; fingerprint?: string | null } = {},
): Spooled {
  const { shape = "event", fingerprint = null } = options;
  const name = segmentName({ id: idAt(ms), shape, fingerprint });
  const pieces: Uint8Array[] = [];
  let at = 0;
  const placed = groups.map((rows) => {
    const text = rows.map((row) => JSON.stringify(row) + "\n").join("");
    const bytes = Buffer.from(text);
    pieces.push(bytes, sealLine(bytes));
    const start = at;
    at += bytes.length + SEAL_BYTES;
    return { text, start, end: at };
  });
  return {
    table,
    name,
    path: `${DATA}/spool/${table}/${name}`,
    bytes: new Uint8Array(Buffer.concat(pieces)),
    groups: placed,
  };
}

/** A batch that was found in a segment. */
export type RecoveredSegment = FoundBatch["head"] & {
  readonly kind: "segment";
  readonly path: string;
  readonly keep: boolean;
  readonly rows: number;
  readonly bytes: number;
  readonly types: Map<string, number>;
  readonly ranges: FoundBatch["ranges"];
};

export interface Recovery {
  readonly segments: RecoveredSegment[];
  readonly quarantined: Quarantined[];
  readonly log: readonly LogLine[];
  /** Good rows by path. */
  readonly texts: ReadonlyMap<string, string>;
  /** File name in quarantine to content. */
  readonly quarantine: ReadonlyMap<string, Uint8Array>;
}

export function placeOf(
  files: FaultyFiles,
): DataDir & { readonly log: ReturnType<typeof memoryLog> } {
  return { files, dataDir: DATA, log: memoryLog() };
}

export async function recoverAll(files: FaultyFiles): Promise<Recovery> {
  const place = placeOf(files);
  const segments: RecoveredSegment[] = [];
  const quarantined: Quarantined[] = [];
  const texts = new Map<string, string>();
  await openSpool(place);
  for await (const found of recover(place, await listSpool(place))) {
    if (found.kind === "quarantined") quarantined.push(found);
    else if (found.kind === "batch" && found.segment !== null) {
      const { path, keep } = found.segment;
      const { head, rows: count, bytes: size, types, ranges } = found;
      segments.push({
        kind: "segment",
        ...head,
        path,
        keep,
        rows: count,
        bytes: size,
        types,
        ranges,
      });
      const bytes = files.get(path)!;
      const rows = found.ranges.map(({ start, end }) => bytes.subarray(start, end));
      texts.set(path, Buffer.concat(rows).toString());
    }
  }
  const quarantine = new Map<string, Uint8Array>();
  for (const path of files.paths()) {
    const [, name] = path.split(`${DATA}/quarantine/`);
    if (name !== undefined) quarantine.set(name, files.get(path)!);
  }
  return { segments, quarantined, log: place.log.lines, texts, quarantine };
}
