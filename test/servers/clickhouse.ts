/**
 * The embedded ClickHouse (26.7): npm's libchdb in a process of its own, with the HTTP interface of
 * a real server. No root, no container, ready in a fraction of a second.
 */
import { existsSync, writeFileSync } from "node:fs";
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

/** Who may use a server, besides `default`, who may do everything there. XML as in ClickHouse's users.xml. */
export interface Access {
  /** Profiles besides `default`. */
  readonly profiles?: string;
  readonly users?: string;
}

/** A user of a profile, with the password `p`. @param grants all that it may do; everything unless given. */
export function userXml(name: string, grants?: readonly string[], profile = "default"): string {
  const granted = grants?.map((grant) => `<query>GRANT ${grant}</query>`).join("");
  return `<${name}><password>p</password><networks><ip>::/0</ip></networks>` +
    `<profile>${profile}</profile><quota>default</quota>` +
    `${granted === undefined ? "" : `<grants>${granted}</grants>`}</${name}>`;
}

/** Starts an empty server. The library is mapped by Bun, also when the tests run elsewhere. */
export async function startClickHouse(access?: Access): Promise<ClickHouse> {
  const library = libraryPath();
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const dir = tempDir("clickhouse");
  if (access !== undefined) {
    const users = join(dir, "users.xml");
    writeFileSync(users, accessXml(access));
    writeFileSync(
      join(dir, "config.xml"),
      `<clickhouse><users_config>${users}</users_config></clickhouse>`,
    );
  }
  const config = access === undefined ? [] : ["127.0.0.1", join(dir, "config.xml")];
  const server = await startServer({
    name: "embedded ClickHouse",
    command: join(ROOT, "node_modules/.bin/bun"),
    args: [HOST, library, String(port), join(dir, "data"), ...config],
    dir,
    url,
    port,
    env: { TZ: "UTC" },
    probe: () => ping(url),
  });
  return withQuery(server);
}

function accessXml({ profiles = "", users = "" }: Access): string {
  return `<clickhouse>
  <profiles><default/>${profiles}</profiles>
  <users><default>
    <password></password><networks><ip>::/0</ip></networks>
    <profile>default</profile><quota>default</quota><access_management>1</access_management>
  </default>${users}</users>
  <quotas><default/></quotas>
</clickhouse>
`;
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
