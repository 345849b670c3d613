/**
 * One ClickHouse: is it there, who are we there, does its clock agree with ours, and can its tables
 * take what will be sent? Nothing is written: the INSERTs that try the rights carry no row.
 */

import type { Endpoint, Settings } from "../../settings/settings.ts";
import { clockOf } from "./clock.ts";
import { lookAtEventsTable } from "./events_table.ts";
import { about, type Finding } from "./finding.ts";
import { lookAtOtherTables } from "./other_tables.ts";
import { connect, databaseIsThere, remedy } from "./server.ts";

export async function lookAtClickHouse(
  endpoint: Endpoint,
  settings: Settings,
): Promise<Finding[]> {
  const server = connect(endpoint);
  const { query } = server;
  const { label, database } = endpoint;
  const is = about(`clickhouse ${label}`);
  const answer = await query.rows("SELECT version() AS version");
  if (!answer.ok) return [is.wrong(answer.problem, remedy(answer.code, endpoint))];
  const version = is.ok(String(answer.value[0]?.["version"]));
  if (!await databaseIsThere(server)) {
    const what = `database ${database} on ${label}`;
    return [version, about(what).wrong("not there, or this user may not see it", "create it")];
  }
  const [clock, events, others] = await Promise.all([
    clockOf(server, is),
    lookAtEventsTable(server, settings),
    lookAtOtherTables(server, settings),
  ]);
  return [version, ...clock, ...events, ...others];
}
