/** A collector in a database of its own, so that tests do not meet in a table. */
import type { ClickHouse } from "../kit/servers.ts";
import { type Shishi, startShishi } from "../kit/shishi.ts";

export const WAIT = { headers: { prefer: "wait=30" } };
/** From the acknowledgement to the table, with the default settings. */
export const SOON_MS = 2_000;

export async function startIn(
  clickhouse: ClickHouse,
  database: string,
  ...args: readonly string[]
): Promise<Shishi> {
  await clickhouse.query(`CREATE DATABASE IF NOT EXISTS ${database}`);
  return await startShishi({
    args: ["--clickhouse-url", `${clickhouse.url}/${database}`, ...args],
  });
}
