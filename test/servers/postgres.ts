/**
 * PostgreSQL: TLS by the authority `CERTIFICATE`, a superuser with a password (SCRAM). It
 * refuses to run as root, so that a test that does starts it as the user of its Debian package.
 */
import { spawnSync } from "node:child_process";
import { chownSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { CERTIFICATE, SIGNED_CERTIFICATE, SIGNED_KEY } from "../kit/certificate.ts";
import { freePort } from "../kit/free_port.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { type Family, withFamily } from "./family.ts";
import { programAt, type Server, startServer } from "./process.ts";
import { reach } from "./reach.ts";

/** Of a database that the tests of an outbox start: its superuser, who may come from 127.0.0.1. */
export const ADMIN = { name: "admin", password: "geheim@1:/" };

const BIN = "/usr/lib/postgresql/15/bin";

/** `url` is `postgres://127.0.0.1:PORT/postgres`. @param settings such as `max_connections=5`. */
export async function startPostgres(
  settings: readonly string[] = [],
): Promise<Server & Family> {
  const postgres = programAt([join(BIN, "postgres")], "postgresql-15");
  const dir = tempDir("postgres");
  const data = join(dir, "data");
  writeFileSync(join(dir, "password"), `${ADMIN.password}\n`);
  writeFileSync(join(dir, "cert.pem"), SIGNED_CERTIFICATE + CERTIFICATE);
  writeFileSync(join(dir, "key.pem"), SIGNED_KEY, { mode: 0o600 });
  const as = servant(dir, ["password", "cert.pem", "key.pem"]);
  const made = spawnSync(as[0] ?? join(BIN, "initdb"), [
    ...(as.length > 0 ? [...as.slice(1), join(BIN, "initdb")] : []),
    ...["-D", data, "-U", ADMIN.name, "--pwfile", join(dir, "password")],
    ...["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"],
  ], { cwd: dir, encoding: "utf8" });
  if (made.status !== 0) {
    removeDir(dir);
    throw new Error(`initdb failed: ${made.error?.message ?? made.stderr}`);
  }
  const port = await freePort();
  const options = [
    ...["listen_addresses=127.0.0.1", `port=${port}`, "unix_socket_directories="],
    ...["ssl=on", `ssl_cert_file=${dir}/cert.pem`, `ssl_key_file=${dir}/key.pem`],
    ...["fsync=off", "shared_buffers=16MB", "max_wal_size=64MB", "autovacuum_naptime=5s"],
    ...settings,
  ].flatMap((option) => ["-c", option]);
  const command = [...as, postgres, "-D", data, ...options];
  const server = await startServer({
    name: "PostgreSQL",
    command: command[0]!,
    args: command.slice(1),
    dir,
    url: `postgres://127.0.0.1:${port}/postgres`,
    port,
    probe: () => reach(port),
  });
  return withFamily(server);
}

/** What runs a program as another user, where this one is root, who then owns these files. */
function servant(dir: string, files: readonly string[]): readonly string[] {
  if (process.getuid?.() !== 0) return [];
  const passwd = readFileSync("/etc/passwd", "utf8");
  const [, , uid, gid] = /^postgres:.*$/m.exec(passwd)?.[0].split(":") ?? [];
  if (uid === undefined || gid === undefined) throw new Error("there is no user postgres");
  for (const path of [dir, ...files.map((name) => join(dir, name))]) {
    chownSync(path, Number(uid), Number(gid));
  }
  return ["/usr/bin/setpriv", `--reuid=${uid}`, `--regid=${gid}`, "--clear-groups"];
}
