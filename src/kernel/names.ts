/**
 * Names and identifiers: what a table may be called, which tables a glob means, and the ids that are
 * minted here.
 */

const PLAIN_NAME = "[A-Za-z_][A-Za-z0-9_]{0,126}";

/** What a table may be called, for patterns and documents: the source of `TABLE_NAME`. */
export const TABLE_NAME_PATTERN = `^${PLAIN_NAME}$`;
/** What a table may be called: such a name is safe in SQL, in a path and in a file's name. */
export const TABLE_NAME: RegExp = new RegExp(TABLE_NAME_PATTERN);

export function isTableName(name: string): boolean {
  return TABLE_NAME.test(name);
}

/** Answers that are remembered; clients choose the names that are asked for. */
const REMEMBERED = 1000;

/** A test for the names that one of `globs` matches as a whole; never for what is no table name. */
export function compileGlobs(globs: readonly string[]): (table: string) => boolean {
  const patterns = globs.map((glob) =>
    new RegExp(
      `^${glob.replace(/[.+^${}()|[\]\\]/g, "\\$&").replace(/\*+/g, ".*").replaceAll("?", ".")}$`,
    )
  );
  const known = new Map<string, boolean>();
  return (table) => {
    let allowed = known.get(table);
    if (allowed === undefined) {
      allowed = isTableName(table) && patterns.some((pattern) => pattern.test(table));
      if (known.size < REMEMBERED) known.set(table, allowed);
    }
    return allowed;
  };
}

/**
 * UUIDv7 (RFC 9562): begins with the time, so names sort by age on disk and in logs; the rest is chance,
 * from the platform's secure source.
 * @param nowMs epoch milliseconds, taken as the UUID's time.
 */
export function uuid7(nowMs: number): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  for (let i = 0, time = nowMs; i < 6; i++, time = Math.floor(time / 256)) {
    bytes[5 - i] = time % 256;
  }
  bytes[6] = 0x70 | (bytes[6]! & 0x0f);
  bytes[8] = 0x80 | (bytes[8]! & 0x3f);
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)]
    .join("-");
}
