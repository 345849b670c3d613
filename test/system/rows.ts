/** Rows for a plain table, posted as a client would, whether ClickHouse can take them or not. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type Letter, readLetter, tableOfFile } from "../../src/dead/letter.ts";
import type { ClickHouse } from "../kit/servers.ts";
import type { Answer, Shishi } from "../kit/shishi.ts";

/** Plain on purpose: every ClickHouse since the first knows these types. */
export function createPlain(
  clickhouse: Pick<ClickHouse, "query">,
  table: string,
  settings = "",
): Promise<string> {
  return clickhouse.query(
    `CREATE TABLE ${table} (n UInt32, s String) ENGINE = MergeTree ORDER BY n ${settings}`,
  );
}

export const DEDUPLICATED = "SETTINGS non_replicated_deduplication_window = 1000";

export const good = (n: number) => `{"n":${n},"s":"row ${n}"}`;
/** Its column cannot take it; Shishi, which knows only names, can. */
export const bad = (n: number) => `{"n":"no number","s":"bad row ${n}"}`;

/** Lines as one request; every one of them is taken. */
export async function postLines(
  shishi: Shishi,
  table: string,
  lines: readonly string[],
  headers: Readonly<Record<string, string>> = {},
): Promise<Answer> {
  const answer = await shishi.post(lines.join("\n"), { path: `/events/${table}`, headers });
  assert.ok([200, 202].includes(answer.status), `${answer.status} ${answer.text}`);
  assert.equal(answer.json.accepted, lines.length);
  return answer;
}

/** `count` lines in requests of a thousand. */
export async function postMany(
  shishi: Shishi,
  table: string,
  count: number,
  line: (n: number) => string,
): Promise<void> {
  const lines = Array.from({ length: count }, (_, n) => line(n));
  for (let at = 0; at < count; at += 1000) {
    await postLines(shishi, table, lines.slice(at, at + 1000));
  }
}

/** The dead letters that the collector has written. */
export function refusals(shishi: Shishi): Letter[] {
  const folder = join(shishi.dir, "shishi-data", "dead");
  return readdirSync(folder)
    .filter((name) => tableOfFile(name) !== null)
    .flatMap((name) => readFileSync(join(folder, name), "utf8").split("\n"))
    .flatMap((line) => readLetter(line) ?? []);
}
