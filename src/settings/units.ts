/**
 * Durations, sizes and counts as people write them. Pure: text in, number out, `null` for anything
 * else. Each `format` writes what its `parse` reads back to the same number.
 */

const DURATION =
  /^(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?$/;
const DURATION_MS = [3_600_000, 60_000, 1000, 1] as const;
const DURATION_UNITS = ["h", "m", "s", "ms"] as const;

const SIZE = /^(\d+(?:_\d+)*(?:\.\d+)?) ?(B|[KMGT]i?B)?$/i;
const BINARY_UNITS = [["TiB", 2 ** 40], ["GiB", 2 ** 30], ["MiB", 2 ** 20], [
  "KiB",
  2 ** 10,
]] as const;
const SIZE_BYTES: Readonly<Record<string, number>> = {
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
};

/** `500ms`, `1.5s`, `1m30s`, `1h` as whole milliseconds. A number without a unit is no duration. */
export function parseDurationMs(text: string): number | null {
  const match = DURATION.exec(text);
  if (!match || text === "") return null;
  const totalMs = DURATION_MS.reduce(
    (sum, unitMs, i) => sum + Number(match[i + 1] ?? 0) * unitMs,
    0,
  );
  return whole(totalMs);
}

/** In the largest unit that leaves a whole number: 90000 is `90s`. `ms` is a whole number >= 0. */
export function formatDuration(ms: number): string {
  if (ms === 0) return "0s";
  const i = DURATION_MS.findIndex((unitMs) => ms % unitMs === 0);
  return `${ms / (DURATION_MS[i] ?? 1)}${DURATION_UNITS[i] ?? "ms"}`;
}

/** `64KiB`, `1.5MiB` (powers of 1024), `10MB` (powers of 1000), `512B` or plain bytes, as bytes. */
export function parseBytes(text: string): number | null {
  const match = SIZE.exec(text);
  if (!match) return null;
  const unitBytes = SIZE_BYTES[(match[2] ?? "B").toLowerCase()] ?? NaN;
  return whole(Number((match[1] ?? "").replaceAll("_", "")) * unitBytes);
}

/** In the largest binary unit that leaves a whole number, else in plain bytes. */
export function formatBytes(bytes: number): string {
  for (const [unit, unitBytes] of BINARY_UNITS) {
    if (bytes >= unitBytes && bytes % unitBytes === 0) return `${bytes / unitBytes}${unit}`;
  }
  return String(bytes);
}

/** `1000000` or `1_000_000`. */
export function parseCount(text: string): number | null {
  return /^\d+(?:_\d+)*$/.test(text) ? whole(Number(text.replaceAll("_", ""))) : null;
}

/** Plain digits, as a flag takes them. */
export function formatCount(count: number): string {
  return String(count);
}

/** Decimal fractions such as 1.005s are not exact in binary: what rounding explains is whole. */
function whole(value: number): number | null {
  const rounded = Math.round(value);
  return Math.abs(value - rounded) < 1e-6 && Number.isSafeInteger(rounded) ? rounded : null;
}
