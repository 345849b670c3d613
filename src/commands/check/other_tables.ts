/** The tables behind POST /events/TABLE: each that is named must be there, each that is there take rows. */

import { compileGlobs } from "../../kernel/names.ts";
import { quoteString } from "../../deliver/sql.ts";
import type { Settings } from "../../settings/settings.ts";
import { about, type Finding } from "./finding.ts";
import { insertable } from "./insertable.ts";
import type { Server } from "./server.ts";

/** Tables that are looked at; a glob may match any number. */
const MOST = 20;

export async function lookAtOtherTables(
  server: Server,
  { table: eventsTable, tables: globs }: Settings,
): Promise<Finding[]> {
  if (globs.length === 0) return [];
  const { query, endpoint } = server;
  const listed = await query.rows(
    `SELECT name FROM system.tables WHERE database = ${quoteString(endpoint.database)}`,
  );
  if (!listed.ok) {
    return [about(`tables on ${endpoint.label}`).wrong(listed.problem)];
  }
  const names = listed.value.map(({ name }) => String(name)).sort();
  const allows = compileGlobs(globs);
  const found = names.filter((name) => allows(name) && name !== eventsTable);
  const findings: Finding[] = [];
  for (const glob of globs) {
    const matches = compileGlobs([glob]);
    if (names.some(matches) || glob === eventsTable) continue;
    findings.push(
      /[*?]/.test(glob)
        ? about(`tables ${glob} on ${endpoint.label}`).warning("no table matches")
        : about(`table ${glob} on ${endpoint.label}`).wrong(
          "not there, or this user may not see it",
          "create it: only the table of events is made by itself",
        ),
    );
  }
  const looked = await Promise.all(
    found.slice(0, MOST).map((name) => insertable(server, name, "row")),
  );
  findings.push(...looked.flat());
  if (found.length > MOST) {
    findings.push(
      about(`tables on ${endpoint.label}`).ok(`${found.length - MOST} more were not looked at`),
    );
  }
  return findings;
}
