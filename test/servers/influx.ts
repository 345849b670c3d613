/** InfluxDB 1.6: empty, without authentication, without reporting home. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { freePort } from "../kit/free_port.ts";
import { tempDir } from "../kit/temp.ts";
import { programAt, type Server, startServer } from "./process.ts";

export interface Influx extends Server {
  /**
   * Runs InfluxQL on database `db`; the rows of all series, each with its columns, its tags and the
   * series' name as `name`. Throws InfluxDB's error text.
   */
  query(db: string, q: string): Promise<Record<string, unknown>[]>;
}

/** Starts an empty server; `http` is more of its configuration's section of that name. */
export async function startInflux(http = ""): Promise<Influx> {
  const command = programAt(["/usr/bin/influxd", "/usr/sbin/influxd"], "influxdb");
  const dir = tempDir("influx");
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const file = join(dir, "influxdb.conf");
  writeFileSync(
    file,
    `reporting-disabled = true
bind-address = "127.0.0.1:${await freePort()}"
[meta]
  dir = "${dir}/meta"
[data]
  dir = "${dir}/data"
  wal-dir = "${dir}/wal"
[http]
  bind-address = "127.0.0.1:${port}"
  log-enabled = false
  ${http}
[monitor]
  store-enabled = false
[continuous_queries]
  enabled = false
`,
  );
  const server = await startServer({
    name: "InfluxDB",
    command,
    args: ["-config", file],
    dir,
    url,
    port,
    probe: async () => {
      const answer = await fetch(`${url}/ping`, { signal: AbortSignal.timeout(2000) });
      await answer.text();
      if (answer.status !== 204) throw new Error(`/ping answered ${answer.status}`);
    },
  });
  const query = async (db: string, q: string) => {
    const answer = await fetch(`${url}/query?db=${encodeURIComponent(db)}`, {
      method: "POST",
      body: new URLSearchParams({ q }),
      signal: AbortSignal.timeout(30_000),
    });
    return rowsOf(JSON.parse(await answer.text()) as Answer);
  };
  return Object.defineProperties({ query } as Influx, {
    ...Object.getOwnPropertyDescriptors(server),
  });
}

interface Answer {
  error?: string;
  results?: {
    error?: string;
    series?: {
      name: string;
      columns: string[];
      values?: unknown[][];
      tags?: Record<string, string>;
    }[];
  }[];
}

function rowsOf(answer: Answer): Record<string, unknown>[] {
  const failed = answer.error ?? answer.results?.find((result) => result.error)?.error;
  if (failed !== undefined) throw new Error(failed);
  const series = (answer.results ?? []).flatMap((result) => result.series ?? []);
  return series.flatMap(({ name, columns, values = [], tags = {} }) =>
    values.map((value) => ({
      ...(columns.includes("name") ? {} : { name }),
      ...tags,
      ...Object.fromEntries(columns.map((column, at) => [column, value[at]])),
    }))
  );
}
