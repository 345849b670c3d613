/**
 * The Dockerfile, built and run as docs/operations.md says: as nobody in particular, with a root that cannot be
 * written and its data in a volume, ClickHouse and NATS on another host. Nothing is pulled.
 */

import assert from "node:assert/strict";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { ROOT } from "../../.release/build.ts";
import { eventually } from "../kit/wait.ts";
import { baseImage, type Engine, makeBaseImage, newEngine } from "./engine.ts";
import { ok } from "./exec.ts";
import { type Cable, layCable } from "./net.ts";
import { type Servers, startServers } from "./servers.ts";

const IMAGE = "localhost/shishi";
const MOST_BYTES = 150_000_000;
const AS_DOCUMENTED = [
  ...["--read-only", "--cap-drop=all", "--security-opt=no-new-privileges"],
  "--volume=shishi-data:/data",
];

const engine: Engine = newEngine();
let cable: Cable;
let servers: Servers;

before(async () => {
  cable = await layCable();
  [servers] = await Promise.all([startServers(cable), makeBaseImage(engine)]);
});
after(async () => {
  await engine.tryPodman("rm", "--all", "--force", "--time=0");
  await servers?.close();
  cable?.close();
});

/** Starts a container that listens on port 8080 of the near end of the cable. */
async function start(name: string, ...settings: string[]): Promise<void> {
  const network = `--network=ns:/proc/${cable.near.pid}/ns/net`;
  const hosts = ["clickhouse", "nats"].map((host) => `--add-host=${host}:${cable.far.address}`);
  const env = settings.map((setting) => `--env=SHISHI_${setting}`);
  await engine.tryPodman(
    ...["run", "--detach", `--name=${name}`, "--cgroups=disabled", network, ...hosts],
    ...[...AS_DOCUMENTED, ...env, IMAGE],
  );
  await eventually(() => curl("healthz"), { withinMs: 20_000 }).catch(async (problem: Error) => {
    const { stderr } = await engine.tryPodman("logs", name);
    throw new Error(`${problem.message}\n${stderr}`);
  });
}

/** Asks the container over its own loopback; throws unless the answer is 2xx. */
function curl(path: string, ...more: string[]): Promise<string> {
  const url = `http://127.0.0.1:8080/${path}`;
  const flags = ["--silent", "--show-error", "--fail-with-body", "--max-time", "10"];
  return ok(cable.near.inside(["curl", ...flags, ...more, url]));
}

const post = (event: string) => curl("events", "--data", event);

test("Bun of the image is the one that everything else is built with", () => {
  const { packages } = JSON.parse(readFileSync(join(ROOT, "package-lock.json"), "utf8"));
  assert.equal(baseImage(), `docker.io/oven/bun:${packages["node_modules/bun"].version}`);
});

test("it builds without pulling anything", async () => {
  const how = ["--isolation=chroot", "--pull-never", "--format=docker"];
  await engine.buildah(
    ...["bud", ...how, "--build-arg=SOURCE_COMMIT=0123456789ab", "--tag", IMAGE, ROOT],
  );
  const alone = ["run", "--rm", "--network=none", "--cgroups=disabled"];
  const version = await engine.podman(...alone, IMAGE, "--version");
  assert.match(version, /commit 0123456789ab/);
});

test("nothing is in it but the binary, its libraries and the authorities", async () => {
  const root = (await engine.podman("image", "mount", IMAGE)).trim();
  const paths = readdirSync(root, { recursive: true, encoding: "utf8" });
  const files = paths.filter((path) => !statSync(join(root, path)).isDirectory()).sort();
  const libraries = /^lib(64)?\/(\S+\/)?(ld-linux-x86-64|lib(c|dl|m|pthread))\.so\.\d+$/;
  assert.deepEqual(
    files.filter((path) => !libraries.test(path)),
    ["etc/ssl/certs/ca-certificates.crt", "shishi"],
  );
  const bytes = files.reduce((sum, path) => sum + statSync(join(root, path)).size, 0);
  assert.ok(bytes <= MOST_BYTES, `${bytes} bytes`);
  await engine.podman("image", "unmount", IMAGE);
});

test("it runs as nobody, with no right at all, and writes to its volume alone", async () => {
  await start("first", "CLICKHOUSE_URL=http://clickhouse:8123");
  const pid = (await engine.podman("inspect", "--format={{.State.Pid}}", "first")).trim();
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  assert.match(status, /^Uid:\t65532\t65532\t65532\t65532$/m);
  assert.match(status, /^CapEff:\t0+$/m);
  assert.match(status, /^CapBnd:\t0+$/m);
  assert.match(status, /^NoNewPrivs:\t1$/m);
  const mounts = readFileSync(`/proc/${pid}/mountinfo`, "utf8").split("\n")
    .map((line) => line.split(" ").slice(4, 6));
  assert.match(mounts.find(([path]) => path === "/")?.[1] ?? "", /^ro\b/);
  assert.match(mounts.find(([path]) => path === "/data")?.[1] ?? "", /^rw\b/);
});

test("its health check tells whether it is alive", async () => {
  await engine.podman("healthcheck", "run", "first");
  const wrong = ["exec", "--env=SHISHI_LISTEN=127.0.0.1:9", "first", "/shishi", "health"];
  assert.equal((await engine.tryPodman(...wrong)).code, 1);
});

test("it finds ClickHouse by name", async () => {
  const answer = await curl(
    "events",
    "--header",
    "Prefer: wait=10",
    "--data",
    '{"eventType":"named"}',
  );
  assert.match(answer, /"ack":"clickhouse"/);
  await engine.podman("rm", "--force", "--time=10", "first");
});

test("what it took before it was killed is in the volume, and the next one delivers it", async () => {
  await start("killed", "CLICKHOUSE_URL=http://clickhouse:9");
  await post('{"eventType":"kept"}');
  await engine.podman("kill", "--signal=KILL", "killed");
  await engine.podman("rm", "--force", "killed");
  await start("next", "CLICKHOUSE_URL=http://clickhouse:8123", "FLUSH_INTERVAL=1h");
  await eventually(async () => assert.equal(await stored("kept"), "1"), { withinMs: 20_000 });
});

test("a stop drains it", async () => {
  await post('{"eventType":"late"}');
  assert.equal(await stored("late"), "0");
  await engine.podman("stop", "--time=10", "next");
  assert.equal(await engine.podman("inspect", "--format={{.State.ExitCode}}", "next"), "0\n");
  assert.equal(await stored("late"), "1");
});

function stored(eventType: string): Promise<string> {
  return servers.query(`SELECT count() FROM analytics_events WHERE event_type = '${eventType}'`);
}
