/**
 * Names and identifiers: what a table may be called, here and on a disk, which tables a glob means, and
 * the ids that are minted here.
 */

const PLAIN_NAME = "[A-Za-z_][A-Za-z0-9_]{0,126}";

/** What a table may be called, for patterns and documents: the source of `TABLE_NAME`. */
export const TABLE_NAME_PATTERN = `^${PLAIN_NAME}$`;
/** What a table may be called: such a name is safe in SQL, in a path and in a file's name. */
export const TABLE_NAME: RegExp = new RegExp(TABLE_NAME_PATTERN);

export function isTableName(name: string): boolean {
  return TABLE_NAME.test(name);
}

/**
 * What of `table` lies in a folder that has these names, once `table + ending` was made there. Where
 * the disk does not tell upper from lower case that was there already as another table's; the second
 * table's name then has a number behind it whose bits say which letters are capitals: `Events` and
 * `events.case-0`. It is the same at every start, and no third table has it.
 * @param ending `/` for a folder.
 */
export function nameAmong(names: readonly string[], table: string, ending: string): string {
  const plain = table + ending;
  const others = names.some((name) => name.toLowerCase() === plain.toLowerCase());
  if (names.includes(plain) || !others) return plain;
  const capitals = [...table].map((char) => /[A-Z]/.test(char) ? "1" : "0").join("");
  return `${table}.case-${BigInt(`0b${capitals}`).toString(16)}${ending}`;
}

/**
 * The table whose rows lie in a folder of the spool; null for a folder that is no table's. A number is
 * believed before the letters: some disks do not even keep them as they were written.
 */
export function tableOfFolder(name: string): string | null {
  const marked = /^([^.]+)\.case-([0-9a-f]{1,32})$/.exec(name);
  const [, letters = name, number = "0"] = marked ?? [];
  const capitals = BigInt(`0x${number}`).toString(2).padStart(letters.length, "0");
  const spelled = [...letters.toLowerCase()].map((char, at) =>
    capitals[at] === "1" ? char.toUpperCase() : char
  );
  const table = marked === null ? name : spelled.join("");
  return isTableName(table) ? table : null;
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
