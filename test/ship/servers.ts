/**
 * ClickHouse and NATS on another host: in a network namespace of their own, on the ports that everybody
 * knows, reached over the cable alone.
 */

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { ROOT } from "../../.release/build.ts";
import { tempDir } from "../kit/temp.ts";
import { libraryPath } from "../servers/clickhouse.ts";
import { type Launch, type Server, startServer } from "../servers/process.ts";
import { ok } from "./exec.ts";
import type { Cable } from "./net.ts";

export interface Servers {
  /** Runs SQL, asked for from the other end; the answer as trimmed text. */
  query(sql: string): Promise<string>;
  close(): Promise<void>;
}

const CLICKHOUSE_PORT = 8123;
const WEBSOCKET_PORT = 9222;
const MONITOR_PORT = 8222;

/** Both answer when it resolves. */
export async function startServers({ near, far }: Cable): Promise<Servers> {
  const { address } = far;
  const curl = (...args: string[]) =>
    ok(near.inside(["curl", "--silent", "--show-error", "--fail-with-body", ...args]));
  const start = (launch: Omit<Launch, "command" | "args">, program: readonly string[]) => {
    const [command = "", ...args] = far.inside(program);
    return startServer({ ...launch, command, args });
  };
  const clickhouseUrl = `http://${address}:${CLICKHOUSE_PORT}`;
  const clickhouseDir = tempDir("clickhouse");
  const clickhouse = await start({
    name: "embedded ClickHouse",
    dir: clickhouseDir,
    url: clickhouseUrl,
    port: CLICKHOUSE_PORT,
    env: { TZ: "UTC" },
    probe: async () => void await curl(`${clickhouseUrl}/ping`),
  }, [
    join(ROOT, "node_modules/.bin/bun"),
    fileURLToPath(new URL("../servers/chdb_host.ts", import.meta.url)),
    ...[libraryPath(), String(CLICKHOUSE_PORT), join(clickhouseDir, "data"), address],
  ]);
  const natsDir = tempDir("nats");
  const config = join(natsDir, "nats.conf");
  writeFileSync(
    config,
    `listen: "${address}:4222"\nhttp: "${address}:${MONITOR_PORT}"\n` +
      `websocket { listen: "${address}:${WEBSOCKET_PORT}", no_tls: true }\n`,
  );
  const nats: Server = await start({
    name: "nats-server",
    dir: natsDir,
    url: `ws://${address}:${WEBSOCKET_PORT}`,
    port: WEBSOCKET_PORT,
    probe: async () => void await curl(`http://${address}:${MONITOR_PORT}/healthz`),
  }, ["nats-server", "-c", config]);
  return {
    query: async (sql) => (await curl("--data-binary", sql, clickhouseUrl)).trim(),
    async close() {
      await nats.close();
      await clickhouse.close();
    },
  };
}
