/**
 * The compiled binary on a real terminal (a pseudo terminal of `script`): the question before a whole
 * fleet is stopped, a live table, Ctrl-C; and a pipe whose reader goes away.
 * Runs once: what is tested is what a terminal shows.
 */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { join } from "node:path";
import process from "node:process";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { type Remote, startRemote } from "../../src/remote/remote.ts";
import { type Nats, startNats } from "../kit/servers.ts";
import { eventually } from "../kit/wait.ts";
import { connected, type FakeControl, fakeControl, remoteOptions } from "../remote/kit.ts";

const SHISHI = join(fileURLToPath(new URL("../../", import.meta.url)), "dist/shishi");
const WITHIN_MS = 30_000;

describe("on a terminal", () => {
  let nats: Nats;
  let controls: FakeControl[] = [];
  let remotes: Remote[] = [];
  before(async () => {
    nats = await startNats();
    const ids = ["a", "b"];
    controls = ids.map((id) => fakeControl("eu", id));
    remotes = ids.map((id, at) =>
      startRemote(remoteOptions([nats.url], controls[at]!, { group: "eu", id }))
    );
    await Promise.all(remotes.map((remote) => connected(remote)));
  });
  after(async () => {
    await Promise.all(remotes.map((remote) => remote.close()));
    await nats.close();
  });

  function start(command: string, args: readonly string[]) {
    const child = spawn(command, args, {
      env: { ...process.env, SHISHI_NATS_URL: nats.url, TERM: "xterm" },
      stdio: ["pipe", "pipe", "pipe"],
    });
    let shown = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => shown += text);
    }
    const exited = new Promise<number | null>((resolve) => child.once("close", resolve));
    const limit = setTimeout(() => child.kill("SIGKILL"), WITHIN_MS);
    void exited.then(() => clearTimeout(limit));
    return {
      type: (keys: string) => void child.stdin.write(keys),
      shows: (text: string | RegExp) =>
        eventually(() => assert.match(shown, new RegExp(text)), { withinMs: WITHIN_MS }),
      end: async () => ({ code: await exited, shown }),
    };
  }
  /** `exec`: a shell that stays in between would answer Ctrl-C itself, with 130. */
  const onTerminal = (args: string) =>
    start("script", ["-qec", `exec ${SHISHI} ${args}`, "/dev/null"]);
  const calls = () => controls.map((control) => control.calls.join());

  test("status --watch is drawn over in place; Ctrl-C ends it with 0", async () => {
    const terminal = onTerminal("status --watch");
    await terminal.shows(/2 collectors: 2 running[^]+2 collectors: 2 running/);
    terminal.type("\x03");
    const { code, shown } = await terminal.end();
    assert.equal(code, 0, shown);
    assert.ok(shown.includes("\x1b[4A\x1b[J"), shown);
  });

  test("status --watch ends when nobody reads it any more", async () => {
    const { code, shown } = await start("sh", ["-c", `${SHISHI} status --watch | head -2`]).end();
    assert.equal(code, 0, shown);
    assert.match(
      shown,
      /^\d\d:\d\d:\d\dZ {2}2 collectors: 2 running; 4 rows held\nGROUP +ID .+\n$/,
    );
  });

  test("stop of all asks; no and Ctrl-C stop nobody", async () => {
    const [no, never] = [onTerminal("stop"), onTerminal("stop")];
    await no.shows(/Stop all: 2 collectors\? \[y\/N\]/);
    no.type("n\n");
    await never.shows(/\[y\/N\]/);
    never.type("\x03");
    const { code, shown } = await no.end();
    assert.equal(code, 1, shown);
    assert.match(shown, /nothing stopped/);
    assert.notEqual((await never.end()).code, 0);
    assert.deepEqual(calls(), ["", ""]);
  });

  test("stop of all asks; yes stops them, each in a line of its own", async () => {
    const terminal = onTerminal("stop");
    await terminal.shows(/\[y\/N\]/);
    terminal.type("y\n");
    await terminal.shows(/eu\.a .+draining[^]+eu\.b .+draining[^]+0 done, 2 draining/);
    for (const control of controls) control.stopped();
    const { code, shown } = await terminal.end();
    assert.equal(code, 0, shown);
    assert.match(shown, /2 of 2 stopped\s*$/);
    assert.deepEqual(calls(), ["stop nats", "stop nats"]);
  });

  test("--yes does not ask", async () => {
    const { shown } = await onTerminal("stop --yes").end();
    assert.doesNotMatch(shown, /\[y\/N\]/);
    assert.deepEqual(calls(), ["stop nats,stop nats", "stop nats,stop nats"]);
  });
});
