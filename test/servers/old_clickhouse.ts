/**
 * Debian's clickhouse-server 18.16: no Map, no DateTime64, no exception header, no deduplication
 * tokens, error 115 for settings it does not know. What works here works on anything in use.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { freePort } from "../kit/free_port.ts";
import { tempDir } from "../kit/temp.ts";
import { type ClickHouse, ping, withQuery } from "./clickhouse.ts";
import { programAt, startServer } from "./process.ts";

/** Starts an empty server. Its user `reader` (password `r`) may write nothing. */
export async function startOldClickHouse(): Promise<ClickHouse> {
  const command = programAt(
    ["/usr/sbin/clickhouse-server", "/usr/bin/clickhouse-server"],
    "clickhouse-server",
  );
  const dir = tempDir("clickhouse18");
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  mkdirSync(join(dir, "data"));
  mkdirSync(join(dir, "tmp"));
  writeFileSync(join(dir, "users.xml"), USERS);
  writeFileSync(
    join(dir, "config.xml"),
    config(dir, { http: port, tcp: await freePort(), interserver: await freePort() }),
  );
  const server = await startServer({
    name: "ClickHouse 18.16",
    command,
    args: [`--config-file=${join(dir, "config.xml")}`],
    dir,
    url,
    port,
    env: { TZ: "UTC" },
    probe: () => ping(url),
  });
  return withQuery(server);
}

const USERS = `<?xml version="1.0"?>
<yandex>
  <profiles><default/><reader><readonly>1</readonly></reader></profiles>
  <users><default>
    <password></password><networks><ip>::/0</ip></networks>
    <profile>default</profile><quota>default</quota>
  </default><reader>
    <password>r</password><networks><ip>::/0</ip></networks>
    <profile>reader</profile><quota>default</quota>
  </reader></users>
  <quotas><default/></quotas>
</yandex>
`;

function config(dir: string, ports: { http: number; tcp: number; interserver: number }): string {
  return `<?xml version="1.0"?>
<yandex>
  <logger><level>warning</level><log>${dir}/server.log</log><errorlog>${dir}/error.log</errorlog></logger>
  <http_port>${ports.http}</http_port>
  <tcp_port>${ports.tcp}</tcp_port>
  <interserver_http_port>${ports.interserver}</interserver_http_port>
  <listen_host>127.0.0.1</listen_host>
  <path>${dir}/data/</path><tmp_path>${dir}/tmp/</tmp_path>
  <users_config>users.xml</users_config>
  <default_profile>default</default_profile><default_database>default</default_database>
  <mark_cache_size>268435456</mark_cache_size>
</yandex>
`;
}
