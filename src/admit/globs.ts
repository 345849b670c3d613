/** Which tables may be written: names or globs with `*` and `?`. Pure but for a small memory. */

/** Answers that are remembered; clients choose the names that are asked for. */
const REMEMBERED = 1000;

/** What a table may be called. */
export const TABLE_NAME = /^[A-Za-z_][A-Za-z0-9_]{0,126}$/;

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
      allowed = TABLE_NAME.test(table) && patterns.some((pattern) => pattern.test(table));
      if (known.size < REMEMBERED) known.set(table, allowed);
    }
    return allowed;
  };
}
