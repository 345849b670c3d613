/**
 * MariaDB, or MySQL where `SHISHI_MARIADB_SERVER_CORE` names a mysqld: TLS by the authority `CERTIFICATE`, a user with all rights and a password, a database `app`. Made of
 * the server's program and the SQL that comes with it: `mariadb-install-db` wants more packages.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { CERTIFICATE, SIGNED_CERTIFICATE, SIGNED_KEY } from "../kit/certificate.ts";
import { freePort } from "../kit/free_port.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { type Family, withFamily } from "./family.ts";
import { ADMIN } from "./postgres.ts";
import { programAt, type Server, startServer } from "./process.ts";
import { reach } from "./reach.ts";

const SQL = ["mysql_system_tables", "mysql_performance_tables", "mysql_system_tables_data"];
const POOL = "--innodb-buffer-pool-size=16M";

/** `url` is `mysql://127.0.0.1:PORT/app`; `admin` may come from 127.0.0.1. @param settings such as `--max-connections=5`. */
export async function startMariadb(settings: readonly string[] = []): Promise<Server & Family> {
  const mariadbd = programAt(["/usr/sbin/mariadbd"], "mariadb-server-core");
  const isMysql = mariadbd.endsWith("/mysqld");
  const small = isMysql
    ? ["--mysqlx=OFF", "--secure-file-priv=NULL"]
    : ["--innodb-log-file-size=8M"];
  const dir = tempDir("mariadb");
  const data = join(dir, "data");
  mkdirSync(data);
  const common = [
    ...["--no-defaults", `--datadir=${data}`, POOL, ...small, "--innodb-flush-log-at-trx-commit=2"],
    // It refuses to be root by accident.
    ...process.getuid?.() === 0 ? ["--user=root"] : [],
  ];
  const made = spawnSync(mariadbd, [...common, isMysql ? "--initialize-insecure" : "--bootstrap"], {
    cwd: dir,
    encoding: "utf8",
    input: isMysql ? "" : [
      "create database mysql;",
      "use mysql;",
      ...SQL.map((name) => readFileSync(`/usr/share/mysql/${name}.sql`, "utf8")),
    ].join("\n"),
  });
  if (made.status !== 0) {
    removeDir(dir);
    throw new Error(`its folder cannot be made: ${made.error?.message ?? made.stderr}`);
  }
  writeFileSync(join(dir, "cert.pem"), SIGNED_CERTIFICATE + CERTIFICATE);
  writeFileSync(join(dir, "key.pem"), SIGNED_KEY, { mode: 0o600 });
  // Run at every start.
  writeFileSync(
    join(dir, "init.sql"),
    `create database if not exists app;
create user if not exists '${ADMIN.name}'@'127.0.0.1' identified by '${ADMIN.password}';
grant all on *.* to '${ADMIN.name}'@'127.0.0.1' with grant option;
`,
  );
  const port = await freePort();
  const server = await startServer({
    name: "MariaDB",
    command: mariadbd,
    args: [
      ...common,
      ...["--bind-address=127.0.0.1", `--port=${port}`, `--socket=${join(dir, "sock")}`],
      ...[`--pid-file=${join(dir, "pid")}`, `--init-file=${join(dir, "init.sql")}`],
      ...[`--ssl-cert=${join(dir, "cert.pem")}`, `--ssl-key=${join(dir, "key.pem")}`],
      ...settings,
    ],
    dir,
    url: `mysql://127.0.0.1:${port}/app`,
    port,
    probe: () => reach(port),
  });
  return withFamily(server);
}
