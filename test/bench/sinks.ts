/** Where the collector's INSERTs go: nowhere, or into the embedded ClickHouse; how many rows arrived. */
import { fileURLToPath } from "node:url";
import { freePort } from "../kit/free_port.ts";
import { startClickHouse } from "../kit/servers.ts";
import { tempDir } from "../kit/temp.ts";
import { startServer } from "../servers/process.ts";
import { move, on, RUNTIME } from "./cores.ts";
import type { SinkName } from "./options.ts";
import { TABLE } from "./scenarios.ts";
import type { Stage } from "./stage.ts";

export interface Sink {
  readonly name: SinkName;
  readonly url: string;
  /** Empties it; afterwards `rows` counts from 0. */
  reset(): Promise<void>;
  rows(): Promise<number>;
  /** Of all rows, as they came; NaN where the sink does not tell. */
  bytes(): Promise<number>;
  /** How long each INSERT takes at least; where the sink can be told. */
  slow(delayMs: number): Promise<void>;
  query(sql: string): Promise<string>;
}

/** Starts sinks when they are first asked for. */
export function createSinks(stage: Stage): (name: SinkName) => Promise<Sink> {
  const started = new Map<SinkName, Promise<Sink>>();
  const start = { swallow: () => startSwallow(stage), clickhouse: () => startReal(stage) };
  return (name) => {
    const sink = started.get(name) ?? start[name]();
    started.set(name, sink);
    return sink;
  };
}

async function startSwallow(stage: Stage): Promise<Sink> {
  const port = await freePort();
  const script = fileURLToPath(new URL("./swallow.ts", import.meta.url));
  const [command, args] = on("load", RUNTIME, [script, String(port)]);
  const url = `http://127.0.0.1:${port}`;
  const ask = async (query = "") =>
    await (await fetch(`${url}/bench${query}`)).json() as { rows: number; bytes: number };
  const server = await startServer({
    ...{ name: "the sink that swallows", command, args, dir: tempDir("swallow"), url, port },
    probe: async () => void await ask(),
  });
  stage.keep(server.close);
  let before = { rows: 0, bytes: 0 };
  return {
    name: "swallow",
    url,
    reset: async () => void (before = await ask()),
    rows: async () => (await ask()).rows - before.rows,
    bytes: async () => (await ask()).bytes - before.bytes,
    slow: async (delayMs) => void await ask(`?delay=${delayMs}`),
    query: () => Promise.reject(new Error("this sink keeps no rows")),
  };
}

async function startReal(stage: Stage): Promise<Sink> {
  const server = await startClickHouse();
  stage.keep(() => server.close());
  await move(server.pid, "load");
  return {
    name: "clickhouse",
    url: server.url,
    async reset() {
      // The collector makes its table anew.
      await server.query("DROP TABLE IF EXISTS analytics_events SYNC");
      await server.query(`DROP TABLE IF EXISTS ${TABLE} SYNC`);
      await server.query(
        `CREATE TABLE ${TABLE} (eventType LowCardinality(String), userId String, ` +
          "timestamp DateTime64(3, 'UTC'), properties Map(String, String)) " +
          "ENGINE = MergeTree ORDER BY (eventType, timestamp) " +
          "SETTINGS non_replicated_deduplication_window = 1000",
      );
    },
    rows: async () =>
      Number(
        await server.query(
          `SELECT (SELECT count() FROM analytics_events) + (SELECT count() FROM ${TABLE})`,
        ),
      ),
    bytes: () => Promise.resolve(NaN),
    slow: () => Promise.reject(new Error("ClickHouse is as slow as it is")),
    query: server.query,
  };
}
