/**
 * Names and identifiers: what a table may be called, here and on a disk, which tables a glob means, and
 * the ids that are minted here.
 */

// What is in no name: it ends one in a list or a path, means something in a glob or a URL, or quotes.
const OUTSIDE = "\\u0000-\\u001f\\u007f-\\u009f%/\\\\*?,;'\"`<>|";
const LONGEST = 127;
/** As a file's name, so that what stands behind it there has room too. */
const LONGEST_FILE_NAME = 150;

/** What a table may be called, for documents; it may be too long for a file's name all the same. */
export const TABLE_NAME_PATTERN = `^(?![. ])[^${OUTSIDE}]{1,${LONGEST}}(?<![. ])$`;
const TABLE_NAME = new RegExp(TABLE_NAME_PATTERN, "u");
/** For error messages. */
export const TABLE_NAME_WANTED =
  "a table name such as events, my-events or db.events, 127 characters at most";

const GLOB = new RegExp(`^(?![. ])[^${OUTSIDE.replace("*?", "")}]{1,${LONGEST}}(?<![. ])$`, "u");

/**
 * What a table may be called: nearly everything that ClickHouse allows. It is quoted in SQL, encoded in a
 * path and in a file's name. `db.table` is a table of another database than the one of `clickhouse-url`.
 */
export function isTableName(name: string): boolean {
  return TABLE_NAME.test(name) && name.isWellFormed() &&
    (PLAIN.test(name) || fileNameOf(name).length <= LONGEST_FILE_NAME);
}

/** A table name, or a pattern of names. */
export function isTableGlob(glob: string): boolean {
  return GLOB.test(glob) && glob.isWellFormed();
}

/** The database that the name tells, null where it is the one of `clickhouse-url`, and the table there. */
export function placeOf(
  name: string,
): { readonly database: string | null; readonly table: string } {
  const point = name.indexOf(".");
  return point < 0
    ? { database: null, table: name }
    : { database: name.slice(0, point), table: name.slice(point + 1) };
}

const PLAIN = /^[A-Za-z0-9_-]*$/;

/**
 * The name of a table's folder or file: each byte that some disk might take for something else, or change,
 * becomes `%` and two digits.
 */
export function fileNameOf(table: string): string {
  if (PLAIN.test(table)) return table;
  const bytes = new TextEncoder().encode(table);
  return Array.from(bytes, (byte) => {
    const char = String.fromCharCode(byte);
    return PLAIN.test(char) ? char : `%${byte.toString(16).padStart(2, "0")}`;
  }).join("");
}

/**
 * What of `table` lies in a folder that has these names, once `fileNameOf(table) + ending` was made there.
 * Where the disk does not tell upper from lower case that was there already as another table's; the second
 * table's name then has a number behind it whose bits say which letters are capitals: `Events` and
 * `events.case-0`. It is the same at every start, and no third table has it.
 * @param ending `/` for a folder.
 */
export function nameAmong(names: readonly string[], table: string, ending: string): string {
  const name = fileNameOf(table);
  const plain = name + ending;
  const others = names.some((other) => other.toLowerCase() === plain.toLowerCase());
  if (names.includes(plain) || !others) return plain;
  const capitals = [...name].map((char) => /[A-Z]/.test(char) ? "1" : "0").join("");
  return `${name}.case-${BigInt(`0b${capitals}`).toString(16)}${ending}`;
}

/**
 * The table whose rows lie in a folder of the spool; null for a folder that is no table's. A number is
 * believed before the letters: some disks do not even keep them as they were written.
 */
export function tableOfFolder(name: string): string | null {
  const marked = /^([^.]+)\.case-([0-9a-f]{1,38})$/.exec(name);
  const [, letters = name, number = "0"] = marked ?? [];
  const capitals = BigInt(`0x${number}`).toString(2).padStart(letters.length, "0");
  const spelled = [...letters.toLowerCase()].map((char, at) =>
    capitals[at] === "1" ? char.toUpperCase() : char
  );
  const written = marked === null ? name : spelled.join("");
  let table: string;
  try {
    table = decodeURIComponent(written);
  } catch {
    return null;
  }
  const same = fileNameOf(table).toLowerCase() === written.toLowerCase();
  return same && isTableName(table) ? table : null;
}

/** Answers that are remembered; clients choose the names that are asked for. */
const REMEMBERED = 1000;

/**
 * A test for the names that one of `globs` matches as a whole; never for what is no table name. A point is
 * only matched by itself: no pattern reaches into another database unless it names one.
 */
export function compileGlobs(globs: readonly string[]): (table: string) => boolean {
  const patterns = globs.map((glob) =>
    new RegExp(
      `^${
        glob.replace(/[.+^${}()|[\]\\]/g, "\\$&").replace(/\*+/g, "[^.]*").replaceAll("?", "[^.]")
      }$`,
      "u",
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
