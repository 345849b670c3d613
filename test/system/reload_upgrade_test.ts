/**
 * Reloads and upgrades in one life: both send new connections from one listener of the port to another,
 * and neither falls into the other. A service manager is told of a reload.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { CERTIFICATE, CERTIFICATE_KEY, RENEWED_CERTIFICATE } from "../kit/certificate.ts";
import { openRaw, rawRequest } from "../kit/raw_http.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";
import { startReceiver } from "../systemd/receiver.ts";
import { say } from "./books.ts";
import { knock, renew } from "./knocking.ts";
import { subjectOf } from "./reload_probes.ts";
import { type Reloading, startReloading, told } from "./reloading.ts";

const SOON = { withinMs: 40_000 };
const NOWHERE = { "clickhouse-url": "http://127.0.0.1:1" };

const count = ({ shishi }: Reloading, message: string) => told(shishi.lines(), message).length;

const followers = ({ shishi }: Reloading): number[] =>
  told(shishi.lines(), "starting a new process to follow this one").map(({ pid }) => Number(pid));

/** Whether it still takes over from the one before, which it has to be done with. */
async function isRecovering({ shishi: { url } }: Reloading): Promise<boolean> {
  const connection = await openRaw(url, CERTIFICATE + RENEWED_CERTIFICATE);
  connection.send(rawRequest("GET", "/api/status", { Connection: "close" }));
  const answer = await connection.answer();
  await connection.close();
  return answer?.json.recovering;
}

/** Has `pid` followed by a new process, and asks it to reload meanwhile; the new one's, when it has ended. */
async function follow(at: Reloading, pid: number): Promise<number> {
  const before = followers(at).length;
  await eventually(async () => assert.equal(await isRecovering(at), false), SOON);
  process.kill(pid, "SIGUSR2");
  await eventually(() => assert.equal(followers(at).length, before + 1, at.shishi.stderr()), SOON);
  process.kill(pid, "SIGHUP");
  await eventually(() => {
    assert.equal(count(at, "stopped"), before + 1, at.shishi.stderr());
    assert.equal(count(at, "reload: the collector is stopping; nothing is read"), before + 1);
  }, SOON);
  return followers(at)[before]!;
}

test("renewed certificates and new processes in turn while connections are opened: none is refused", async () => {
  const at = await startReloading((file) => ({
    ...NOWHERE,
    "tls-cert": file("cert", CERTIFICATE),
    "tls-key": file("key", CERTIFICATE_KEY),
  }));
  const ending = new AbortController();
  const knocking = knock(at.shishi, 3, ending.signal);
  let pid = at.shishi.pid;
  try {
    for (const turn of [0, 1, 2]) {
      renew(at, turn);
      process.kill(pid, "SIGHUP");
      await eventually(() => assert.equal(count(at, "reloaded"), turn + 1), SOON);
      assert.equal(await subjectOf(at), turn % 2 === 0 ? "Shishi renewed" : "Shishi test");
      // At once: the server with the certificate of before is still there.
      if (turn < 2) pid = await follow(at, pid);
      await knocking.settled();
    }
    ending.abort();
    const { failed, answered } = await knocking.done;
    assert.deepEqual(failed, []);
    say("renewed and followed", Object.fromEntries(answered));
    process.kill(pid, "SIGTERM");
    assert.equal((await at.shishi.exited).code, 0, at.shishi.stderr());
    assert.deepEqual(at.shishi.lines().filter(({ level }) => level === "error"), []);
  } finally {
    ending.abort();
    for (const pid of followers(at)) end(pid);
    await at.close();
  }
});

function end(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has ended.
  }
}

test("a service manager is told that a reload begins, and that it is over, also where it changes nothing", async () => {
  const dir = tempDir("reload");
  const receiver = await startReceiver(join(dir, "notify"));
  const at = await startReloading(() => NOWHERE, {
    env: { NOTIFY_SOCKET: join(dir, "notify") },
  });
  try {
    const heard = async (from: number) => {
      const reloading = await receiver.heard(/^RELOADING=1/, from);
      assert.match(reloading, /MONOTONIC_USEC=\d+/);
      const next = receiver.messages.indexOf(reloading, from) + 1;
      assert.equal(await receiver.heard(/^(READY|RELOADING)/, next), "READY=1|");
      return next + 1;
    };
    const first = receiver.messages.length;
    await at.set({ "flush-interval": "2s" });
    const second = await heard(first);
    at.write({ grop: 1 });
    await at.reload();
    await heard(second);
  } finally {
    await at.close();
    await receiver.close();
    removeDir(dir);
  }
});
