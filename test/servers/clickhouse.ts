/**
 * The embedded ClickHouse (26.7): npm's libchdb in a process of its own, with the HTTP interface of
 * a real server. No root, no container, ready in a fraction of a second.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { freePort } from "../kit/free_port.ts";
import { tempDir } from "../kit/temp.ts";
import { type Server, startServer } from "./process.ts";

export interface ClickHouse extends Server {
  /** Runs SQL; the answer as trimmed text (TabSeparated). Throws ClickHouse's error text. */
  query(sql: string): Promise<string>;
}

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const HOST = fileURLToPath(new URL("./chdb_host.ts", import.meta.url));

/** Starts an empty server. The library is mapped by Bun, also when the tests run elsewhere. */
export async function startClickHouse(): Promise<ClickHouse> {
  const library = libraryPath();
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const dir = tempDir("clickhouse");
  const server = await startServer({
    name: "embedded ClickHouse",
    command: join(ROOT, "node_modules/.bin/bun"),
    args: [HOST, library, String(port), join(dir, "data")],
    dir,
    url,
    port,
    env: { TZ: "UTC" },
    probe: () => ping(url),
  });
  return withQuery(server);
}

/** Where libchdb.so lies for this platform; throws a sentence when there is none. */
export function libraryPath(): string {
  const suffix = process.platform === "linux" ? "-gnu" : "";
  const name = `@chdb/lib-${process.platform}-${process.arch}${suffix}`;
  const path = join(ROOT, "node_modules", name, "libchdb.so");
  if (existsSync(path)) return path;
  throw new Error(
    `the embedded ClickHouse needs the npm package ${name}, which is not installed ` +
      "(there are packages for Linux with glibc and macOS, each x64 and arm64)",
  );
}

/** Throws until the server answers `/ping`. */
export async function ping(url: string): Promise<void> {
  const answer = await fetch(`${url}/ping`, { signal: AbortSignal.timeout(2000) });
  const text = await answer.text();
  if (!text.startsWith("Ok")) throw new Error(`/ping answered ${answer.status} ${text}`);
}

/** Adds `query` to a server that speaks ClickHouse's HTTP interface. */
export function withQuery(server: Server): ClickHouse {
  const query = async (sql: string) => {
    const answer = await fetch(server.url, {
      method: "POST",
      body: sql,
      signal: AbortSignal.timeout(30_000),
    });
    const text = (await answer.text()).trim();
    if (!answer.ok) throw new Error(text);
    return text;
  };
  return Object.defineProperties({ query } as ClickHouse, {
    ...Object.getOwnPropertyDescriptors(server),
  });
}
