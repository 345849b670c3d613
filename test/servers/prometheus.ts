/** Prometheus 2.42 that scrapes what a test tells it to, twice a second. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { freePort } from "../kit/free_port.ts";
import { tempDir } from "../kit/temp.ts";
import { programAt, type Server, startServer } from "./process.ts";

export interface Prometheus extends Server {
  /** The body of `GET /api/v1/PATH`'s answer, its `data`; throws Prometheus' error text. */
  api(path: string, query: Readonly<Record<string, string>>): Promise<unknown>;
}

/** @param targets `host:port` of what serves `/metrics`. @param rules a file of alert rules. */
export async function startPrometheus(
  targets: readonly string[],
  ...rules: readonly string[]
): Promise<Prometheus> {
  const command = programAt(["/usr/bin/prometheus"], "prometheus");
  const dir = tempDir("prometheus");
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const file = join(dir, "prometheus.json");
  // JSON is YAML.
  writeFileSync(
    file,
    JSON.stringify({
      global: { scrape_interval: "500ms", scrape_timeout: "500ms", evaluation_interval: "500ms" },
      rule_files: rules,
      scrape_configs: [{ job_name: "shishi", static_configs: [{ targets }] }],
    }),
  );
  const server = await startServer({
    name: "Prometheus",
    command,
    args: [
      `--config.file=${file}`,
      `--storage.tsdb.path=${join(dir, "data")}`,
      `--web.listen-address=127.0.0.1:${port}`,
    ],
    dir,
    url,
    port,
    probe: async () => {
      const answer = await fetch(`${url}/-/ready`, { signal: AbortSignal.timeout(2000) });
      await answer.text();
      if (answer.status !== 200) throw new Error(`/-/ready answered ${answer.status}`);
    },
  });
  const api = async (path: string, query: Readonly<Record<string, string>>) => {
    const answer = await fetch(`${url}/api/v1/${path}?${new URLSearchParams(query)}`, {
      signal: AbortSignal.timeout(30_000),
    });
    const { data, error } = await answer.json() as { data?: unknown; error?: string };
    if (error !== undefined) throw new Error(error);
    return data;
  };
  return Object.defineProperties({ api } as Prometheus, {
    ...Object.getOwnPropertyDescriptors(server),
  });
}
