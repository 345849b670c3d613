/** An outbox in PostgreSQL for the benchmark of sources: two equal tables, since each reader empties one. */
import PgClient from "pg/lib/client.js";
import { ADMIN, startPostgres } from "../kit/servers.ts";
import { move } from "./cores.ts";
import { TABLE } from "./scenarios.ts";
import type { StartBroker } from "./sources.ts";

const BATCH = 1000;

export const outbox: StartBroker = async (stage) => {
  const server = await startPostgres(["fsync=on", "shared_buffers=128MB", "max_wal_size=1GB"]);
  stage.keep(server.close);
  await move(server.pid, "load");
  const client = new PgClient({
    host: "127.0.0.1",
    port: server.port,
    user: ADMIN.name,
    password: ADMIN.password,
    database: "postgres",
  });
  await client.connect();
  stage.keep(() => client.end());
  const login = `${ADMIN.name}:${encodeURIComponent(ADMIN.password)}`;
  const url = `postgres://${login}@127.0.0.1:${server.port}/postgres`;
  let places = 0;
  return {
    async fill(bodies: readonly Uint8Array[]) {
      const table = `bench_${++places}`;
      await client.query(
        `CREATE TABLE ${table} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, payload json)`,
      );
      for (let at = 0; at < bodies.length; at += BATCH) {
        const some = bodies.slice(at, at + BATCH).map((body) => new TextDecoder().decode(body));
        const insert = `INSERT INTO ${table} (payload) SELECT unnest($1::text[])::json`;
        await client.query(insert, [some]);
      }
      await client.query(`CREATE TABLE ${table}_plain (LIKE ${table} INCLUDING ALL)`);
      await client.query(`INSERT INTO ${table}_plain OVERRIDING SYSTEM VALUE TABLE ${table}`);
      await client.query(`ANALYZE ${table}, ${table}_plain`);
      return {
        source: `${url}?outbox=${table}&table=${TABLE}&poll=10ms`,
        plain: ["./plain_outbox.ts", url, `${table}_plain`, String(bodies.length)],
      };
    },
  };
};
