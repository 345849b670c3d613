/**
 * The Debian package on a host that systemd runs: it starts the collector within its sandbox, and an
 * upgrade while events come in restarts it without losing one.
 */

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { after, before, test } from "node:test";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { freePort } from "../kit/free_port.ts";
import { compare, load, storedIds } from "../kit/load.ts";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { eventually } from "../kit/wait.ts";
import { cleanEnv, ok } from "./exec.ts";
import { nextRelease, type Packaged, type Release, thisRelease } from "./releases.ts";
import { newRoot, type Root } from "./root.ts";

const BOOT = fileURLToPath(new URL("./boot.sh", import.meta.url));

let root: Root;
let clickhouse: ClickHouse;
let host: ChildProcess;
/** Of its process 1. */
let pid: string | undefined;
let url: string;
let [first, next] = [null, null] as unknown as [Release, Packaged];

before(async () => {
  [first, next, root, clickhouse] = await Promise.all([
    thisRelease(),
    nextRelease(),
    newRoot(),
    startClickHouse(),
  ]);
  for (const { deb } of [first, next]) copyFileSync(deb, join(root.path, "root", basename(deb)));
  const port = await freePort();
  url = `http://127.0.0.1:${port}`;
  const own = join(root.path, "etc/systemd/system/shishi.service.d");
  mkdirSync(own, { recursive: true });
  const environment = [
    `SHISHI_LISTEN=127.0.0.1:${port}`,
    `SHISHI_CLICKHOUSE_URL=${clickhouse.url}`,
  ];
  writeFileSync(join(own, "here.conf"), `[Service]\nEnvironment=${environment.join(" ")}\n`);
  host = spawn(BOOT, [root.path], { env: cleanEnv(), stdio: ["ignore", "ignore", "inherit"] });
  await eventually(async () => {
    pid ??= (await ok(["pgrep", "--newest", "--full", "^/lib/systemd/systemd$"])).trim();
    assert.match(await inside("systemctl", "is-system-running"), /^running/);
  }, { withinMs: 60_000 });
});
after(async () => {
  const gone = new Promise((resolve) => host.once("close", resolve));
  if (pid !== undefined) {
    process.kill(Number(pid), "SIGKILL");
    await gone;
  }
  await clickhouse?.close();
  await root?.close();
});

const inside = (...command: string[]) =>
  ok([
    "nsenter",
    `--target=${pid}`,
    "--mount",
    "--pid",
    "--uts",
    "--ipc",
    "--root",
    "--wd",
    ...command,
  ]);
const install = ({ deb }: Packaged) => inside("dpkg", "--install", `/root/${basename(deb)}`);
const show = async (property: string) =>
  (await inside("systemctl", "show", "--value", `--property=${property}`, "shishi")).trim();
const version = async () => (await (await fetch(`${url}/api/status`)).json()).version;

test("installed, it runs, ready and as its own user", async () => {
  await install(first);
  const told = await inside("journalctl", "--no-pager", "--lines=20", "--unit=shishi");
  assert.equal(await show("ActiveState"), "active", told);
  assert.equal(await version(), first.version);
  const main = await show("MainPID");
  assert.match(await inside("ps", "-o", "user=", "-p", main), /^shishi/);
});

test("killed, it is started again", async () => {
  const main = await show("MainPID");
  // Nobody's, and to kill that would be to kill this test.
  assert.notEqual(main, "0");
  await inside("kill", "-KILL", main);
  await eventually(async () => {
    assert.notEqual(await show("MainPID"), main);
    assert.equal(await version(), first.version);
  }, { withinMs: 30_000 });
});

test("an upgrade under load restarts it, and loses and doubles nothing", async () => {
  const end = new AbortController();
  const answers = { ok: 0 };
  const loading = load({
    url,
    clients: 8,
    events: 1_000_000,
    eventsPerRequest: 5,
    rowsPerSecond: 1_000,
    insist: true,
    signal: end.signal,
    fetch: async (to, init) => {
      const answer = await fetch(to, { ...init, signal: AbortSignal.timeout(10_000) });
      if (answer.ok) answers.ok++;
      return answer;
    },
  });
  const moreAnswers = async (more: number) => {
    const enough = answers.ok + more;
    await eventually(() => assert.ok(answers.ok >= enough), { withinMs: 30_000 });
  };
  await moreAnswers(100);
  await install(next);
  await moreAnswers(100);
  end.abort();
  const books = await loading;
  assert.equal(await version(), next.version);
  await inside("systemctl", "stop", "shishi");
  assert.equal(await show("Result"), "success");
  const { missing, doubled } = compare(books, await storedIds(clickhouse));
  assert.deepEqual({ missing, doubled }, { missing: 0, doubled: 0 });
});

test("removed while it runs, it is stopped", async () => {
  await inside("systemctl", "start", "shishi");
  await inside("dpkg", "--remove", "shishi-collector");
  await assert.rejects(fetch(`${url}/healthz`));
});
