/**
 * Other ages of ClickHouse, out of PyPI's wheels: 26.9 (newer than the embedded one) and 25.5 (between it
 * and Debian's).
 */
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { freePort } from "../kit/free_port.ts";
import { tempDir } from "../kit/temp.ts";
import { type ClickHouse, ping, withQuery } from "./clickhouse.ts";
import { startServer } from "./process.ts";
import { moduleOf, WHEELS } from "./wheels.mjs";

const HOST = fileURLToPath(new URL("./wheel_host.py", import.meta.url));

export type WheelVersion = keyof typeof WHEELS;

/**
 * Starts an empty server of that version.
 * @param options.profile settings of the default profile, and `constraints`, as XML; a server's alone.
 */
export async function startWheelClickHouse(
  version: WheelVersion,
  options: { readonly profile?: string } = {},
): Promise<ClickHouse> {
  const module = moduleOf(version);
  if (!existsSync(join(module, "_chdb.abi3.so"))) {
    throw new Error(`ClickHouse ${version} is missing: node test/kit/prepare.mjs --engines`);
  }
  const dir = tempDir(`clickhouse${version}`);
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  mkdirSync(join(dir, "data"));
  mkdirSync(join(dir, "tmp"));
  const { mode } = WHEELS[version];
  if (mode === "server") {
    writeFileSync(join(dir, "config.xml"), config(dir, port));
    writeFileSync(join(dir, "users.xml"), usersXml(options.profile ?? ""));
  }
  const server = await startServer({
    name: `ClickHouse ${version}`,
    command: "python3",
    args: mode === "server"
      ? [HOST, module, mode, join(dir, "config.xml")]
      : [HOST, module, mode, String(port), join(dir, "data")],
    dir,
    url,
    port,
    env: { TZ: "UTC" },
    probe: () => ping(url),
    withinMs: 40_000,
  });
  return withQuery(server);
}

/** Users of a server: `default`, who may do everything, under a profile of these settings. */
export function usersXml(profile: string): string {
  return `<clickhouse>
  <profiles><default>${profile}</default><plain/></profiles>
  <users><default>
    <password></password><networks><ip>::/0</ip></networks>
    <profile>default</profile><quota>default</quota><access_management>1</access_management>
  </default><admin>
    <password></password><networks><ip>::/0</ip></networks>
    <profile>plain</profile><quota>default</quota><access_management>1</access_management>
  </admin></users>
  <quotas><default/></quotas>
</clickhouse>
`;
}

function config(dir: string, port: number): string {
  return `<clickhouse>
  <logger><level>warning</level><console>1</console></logger>
  <http_port>${port}</http_port>
  <listen_host>127.0.0.1</listen_host>
  <path>${dir}/data/</path><tmp_path>${dir}/tmp/</tmp_path>
  <users_config>users.xml</users_config>
  <default_profile>default</default_profile><default_database>default</default_database>
  <mark_cache_size>268435456</mark_cache_size>
</clickhouse>
`;
}
