/** `plain_outbox.ts URL TABLE COUNT`: takes so many rows, deletes them, and tells how long it took. */
import process from "node:process";
import PgClient from "pg/lib/client.js";
import { begin, tell } from "./plain.ts";

const [url = "", table, count] = process.argv.slice(-3);
const BATCH = 1000;

const costs = begin();
const client = new PgClient({ connectionString: url });
await client.connect();
let left = Number(count);
while (left > 0) {
  await client.query("BEGIN");
  const { rows } = await client.query({
    text:
      `SELECT id::text, payload::text FROM ${table} ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED`,
    values: [BATCH],
    rowMode: "array",
  });
  const ids = rows.map(([id]: [string]) => id);
  await client.query(`DELETE FROM ${table} WHERE id = ANY($1::text[]::bigint[])`, [ids]);
  await client.query("COMMIT");
  left -= ids.length;
}
await client.end();
tell(costs);
