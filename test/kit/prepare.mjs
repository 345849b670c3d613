/**
 * `node test/kit/prepare.mjs [--servers[=NAME,…]] [--kafka] [--old-redis] [--engines[=VERSION,…]] [--kubernetes]`: makes a fresh clone able to run. Installs the npm
 * packages when they are missing or older than the lockfile; with `--servers` also the Debian packages
 * of the servers that the tests talk to and of the benchmark's load, all of them or those named; with `--kafka`
 * Kafka, out of Maven's jars; with `--old-redis` Redis 6.2, out of a wheel of PyPI; with
 * `--engines[=VERSION,…]` other ages of ClickHouse, out of PyPI's wheels; with
 * `--kubernetes` Helm and the schemas that its output is held to. Plain JavaScript for Node alone: nothing is installed yet when it runs.
 */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { fetchKafka, isFetched as hasKafka, KAFKA } from "../servers/kafka_jars.mjs";
import { fetchKubernetes, isFetched as hasKubernetes } from "../servers/kubernetes.mjs";
import { fetchOldRedis, OLD_REDIS } from "../servers/old_redis.mjs";
import { fetchWheel, isFetched, WHEELS } from "../servers/wheels.mjs";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "../..");
const LOCK = join(ROOT, "package-lock.json");
/** npm writes it at the end of an installation, so an interrupted one does not count. */
const INSTALLED = join(ROOT, "node_modules/.package-lock.json");

/** Debian package → where its program may lie; not all of these folders are on a user's PATH. */
const SERVERS = {
  "clickhouse-server": ["/usr/sbin/clickhouse-server", "/usr/bin/clickhouse-server"],
  "nats-server": ["/usr/sbin/nats-server", "/usr/bin/nats-server"],
  "influxdb": ["/usr/bin/influxd", "/usr/sbin/influxd"],
  "prometheus": ["/usr/bin/prometheus"],
  "wrk": ["/usr/bin/wrk"],
  "xz-utils": ["/usr/bin/xz"],
  "man-db": ["/usr/bin/man"],
  "mandoc": ["/usr/bin/mandoc"],
  "systemd": ["/usr/bin/systemd-analyze"],
  "chromium-headless-shell": ["/usr/bin/chromium-headless-shell"],
  "openssl": ["/usr/bin/openssl"],
  "curl": ["/usr/bin/curl"],
  "mmdebstrap": ["/usr/bin/mmdebstrap"],
  "lintian": ["/usr/bin/lintian"],
  "buildah": ["/usr/bin/buildah"],
  "podman": ["/usr/bin/podman"],
  "docker-compose": ["/usr/bin/docker-compose"],
  "ruby": ["/usr/bin/ruby"],
  "gpg": ["/usr/bin/gpg"],
  "gpg-agent": ["/usr/bin/gpg-agent"],
  "zsh": ["/usr/bin/zsh"],
  "fish": ["/usr/bin/fish"],
  "qemu-user-static": ["/usr/bin/qemu-aarch64-static"],
  "libc6-arm64-cross": ["/usr/aarch64-linux-gnu/lib/ld-linux-aarch64.so.1"],
  "python3-pip": ["/usr/bin/python3"],
  "e2fsprogs": ["/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4"],
  "xfsprogs": ["/usr/sbin/mkfs.xfs", "/sbin/mkfs.xfs"],
  "btrfs-progs": ["/usr/bin/mkfs.btrfs", "/usr/sbin/mkfs.btrfs", "/sbin/mkfs.btrfs"],
  "mount": ["/usr/sbin/losetup", "/sbin/losetup"],
  "redis-server": ["/usr/bin/redis-server"],
  "postgresql-15": ["/usr/lib/postgresql/15/bin/postgres"],
  "mariadb-server-core": ["/usr/sbin/mariadbd"],
  "rabbitmq-server": ["/usr/lib/rabbitmq/bin/rabbitmq-server"],
  "erlang-base": ["/usr/bin/epmd", "/usr/lib/erlang/bin/epmd"],
  "maven": ["/usr/bin/mvn"],
  "openjdk-17-jre-headless": ["/usr/lib/jvm/java-17-openjdk-amd64/bin/java", "/usr/bin/java"],
  "iproute2": ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip"],
};

await npmPackages();
const asked = process.argv.slice(2).find((arg) => /^--servers(=|$)/.test(arg));
if (asked !== undefined) await servers(asked.split("=")[1]?.split(",") ?? Object.keys(SERVERS));
// It waits for the network while the others do.
const fetching = process.argv.includes("--kafka") && !hasKafka() ? kafka() : null;
const wheels = process.argv.slice(2).find((arg) => /^--engines(=|$)/.test(arg));
if (wheels !== undefined) engines(wheels.split("=")[1]?.split(",") ?? Object.keys(WHEELS));
if (process.argv.includes("--kubernetes")) kubernetes();
if (process.argv.includes("--old-redis")) oldRedis();
await fetching;

async function kafka() {
  if (SERVERS.maven.every((path) => !existsSync(path))) {
    await servers(["maven", "openjdk-17-jre-headless"]);
  }
  process.stderr.write(`fetching Kafka ${KAFKA} (45 MB, once) …\n`);
  const problem = await fetchKafka();
  if (problem !== null) fail(`Kafka ${KAFKA}: ${problem}`);
}

function oldRedis() {
  if (existsSync(OLD_REDIS)) return;
  process.stderr.write("fetching Redis 6.2 (6 MB, once) …\n");
  const problem = fetchOldRedis();
  if (problem !== null) fail(`Redis 6.2: ${problem}`);
}

function kubernetes() {
  if (hasKubernetes()) return;
  process.stderr.write("fetching Helm and Kubernetes' schemas (60 MB, once) …\n");
  const problem = fetchKubernetes();
  if (problem !== null) fail(`Helm and Kubernetes' schemas: ${problem}`);
}

function engines(names) {
  for (const name of names.filter((name) => !isFetched(name))) {
    process.stderr.write(`fetching ClickHouse ${name} (180 MB, once) …\n`);
    const problem = fetchWheel(name);
    if (problem !== null) fail(`ClickHouse ${name}: ${problem}`);
  }
}

async function npmPackages() {
  if (writtenMs(INSTALLED) >= writtenMs(LOCK) && isComplete()) return;
  // Not `npm ci`: it refuses a lockfile that does not name the packages of every other platform.
  // `--no-save`: a test run changes nothing that git sees.
  let code = await npmInstall([]);
  // A lockfile written elsewhere may not know this platform's packages, and npm then skips them.
  if (code === 0 && !isComplete()) code = await npmInstall(["--no-package-lock"]);
  if (code !== 0) fail("npm install failed; its reason stands above");
  const time = new Date();
  if (existsSync(INSTALLED)) utimesSync(INSTALLED, time, time);
}

function npmInstall(more) {
  const args = ["install", "--no-save", "--no-audit", "--no-fund", "--loglevel=error", ...more];
  return run("npm packages (about 1 GB, once: ClickHouse, Bun, Deno)", "npm", args);
}

/** Whether the programs that come as packages of this platform are there. */
function isComplete() {
  return ["bun", "deno"].every((name) =>
    spawnSync(join(ROOT, "node_modules/.bin", name), ["--version"], { stdio: "ignore" }).status ===
      0
  );
}

async function servers(names) {
  const missing = names.filter((name) => !SERVERS[name].some((path) => existsSync(path)));
  if (missing.length === 0) return;
  const install = `sudo apt-get install --no-install-recommends ${missing.join(" ")}`;
  const ask = `this needs ${missing.join(", ")}: ${install}`;
  if (process.getuid?.() !== 0) fail(ask);
  if (spawnSync("apt-get", ["--version"], { stdio: "ignore" }).status !== 0) fail(ask);
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  // A package list that cannot be refreshed may still do.
  await run("the list of Debian packages", "apt-get", ["-qq", "update"], env);
  const code = await withoutServices(() =>
    run(
      missing.join(", "),
      "apt-get",
      [
        "-qq",
        "-o",
        "DPkg::Lock::Timeout=300",
        "install",
        "-y",
        "--no-install-recommends",
        ...missing,
      ],
      env,
    )
  );
  if (code !== 0) fail(`apt-get could not install them; ${ask}`);
}

/**
 * A package of a server starts it, on the port that it has everywhere; the tests start their own. Debian asks
 * this file first; where there is one already, it stays as it is.
 */
async function withoutServices(install) {
  const policy = "/usr/sbin/policy-rc.d";
  const ours = !existsSync(policy);
  if (ours) writeFileSync(policy, "#!/bin/sh\nexit 101\n", { mode: 0o755 });
  try {
    return await install();
  } finally {
    if (ours) rmSync(policy, { force: true });
  }
}

/** Runs quietly beside one line that shows the time; on failure shows what the program printed. */
function run(what, command, args, env = process.env) {
  const began = Date.now();
  const line = () => `installing ${what} … ${Math.round((Date.now() - began) / 1000)} s`;
  const terminal = process.stderr.isTTY === true;
  process.stderr.write(terminal ? line() : `installing ${what} …\n`);
  const ticker = setInterval(
    () => process.stderr.write(terminal ? `\r${line()}` : `${line()}\n`),
    terminal ? 1000 : 15_000,
  );
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: ROOT, env, stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    const keep = (data) => output = (output + data).slice(-20_000);
    child.stdout.on("data", keep);
    child.stderr.on("data", keep);
    const done = (code) => {
      clearInterval(ticker);
      process.stderr.write(
        terminal ? `\r${line()}\n` : `${line()}: ${code === 0 ? "done" : "failed"}\n`,
      );
      if (code !== 0) process.stderr.write(output);
      resolve(code);
    };
    child.once("error", (error) => {
      output += `${command}: ${error.message}\n`;
      done(-1);
    });
    child.once("close", (code) => done(code));
  });
}

/** When the file was written, epoch milliseconds; 0 when there is none. */
function writtenMs(path) {
  return existsSync(path) ? statSync(path).mtimeMs : 0;
}

function fail(sentence) {
  process.stderr.write(`${sentence}\n`);
  process.exit(1);
}
