/** What a service manager hears of a collector, on a real datagram socket. */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { openLibc } from "../../src/runtime/libc.ts";
import { serviceManager, unixAddress } from "../../src/systemd/notify.ts";
import { startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";
import { type Receiver, startReceiver } from "./receiver.ts";

const NOWHERE = ["--clickhouse-url", "http://127.0.0.1:1", "--shutdown-timeout", "500ms"];

test("from source and as the binary: ready when it answers, beats while it lives, says that it stops", async () => {
  const dir = tempDir("notify");
  const ends = [() => Promise.resolve(removeDir(dir))];
  const start = async (binary: boolean) => {
    const name = join(dir, binary ? "binary" : "source");
    const receiver = await startReceiver(name);
    ends.unshift(receiver.close);
    const env = { NOTIFY_SOCKET: name, WATCHDOG_USEC: "100000" };
    const shishi = await startShishi({ binary, args: NOWHERE, env });
    ends.unshift(shishi.close);
    return { name, receiver, shishi };
  };
  try {
    const both = [await start(false), await start(true)] as const;
    for (const { receiver, shishi } of both) {
      await receiver.heard(/(^|\|)READY=1\|/);
      assert.equal((await shishi.get("/healthz")).status, 200);
      await receiver.heard(/^WATCHDOG=1\|/);
      await shishi.post({ eventType: "click" });
      await receiver.heard(/\|STATUS=\w+: 1 rows held, oldest \d+ s, 0 stored\|$/);
    }

    const [source, binary] = both;
    for (const [halted, other] of [[source, binary], [binary, source]] as const) {
      halted.shishi.signal("SIGSTOP");
      await eventually(() => assert.ok(isHalted(halted.shishi.pid)), { withinMs: 10_000 });
      const before = await messagesTo(halted);
      for (let beats = 0; beats < 5; beats++) {
        await other.receiver.heard(/^WATCHDOG=1\|/, other.receiver.messages.length);
      }
      const after = await messagesTo(halted);
      assert.equal(after, before, "a process that is halted does not beat");
      const heard = halted.receiver.messages.length;
      halted.shishi.signal("SIGCONT");
      await halted.receiver.heard(/WATCHDOG=1/, heard);
    }

    for (const { shishi } of both) shishi.signal("SIGTERM");
    for (const { receiver, shishi } of both) {
      const last = await receiver.heard(/^STOPPING=1\|STATUS=draining: 1 rows held/);
      assert.match(last, /\|EXTEND_TIMEOUT_USEC=30000000\|$/);
      assert.equal((await shishi.exited).code, 0);
      assert.equal(receiver.messages.filter((message) => /READY=1/.test(message)).length, 1);
    }
  } finally {
    for (const end of ends) await end();
  }
});

/** Every thread of it, as the kernel sees it. */
function isHalted(pid: number): boolean {
  const tasks = `/proc/${pid}/task`;
  return readdirSync(tasks).every((task) =>
    /^\d+ \(.*\) T/.test(readFileSync(join(tasks, task, "stat"), "utf8"))
  );
}

/** How many messages were sent to a manager by others: ours, behind them, has come through. */
async function messagesTo(
  { name, receiver }: { readonly name: string; readonly receiver: Receiver },
): Promise<number> {
  const manager = await serviceManager(openLibc, { NOTIFY_SOCKET: name });
  const from = receiver.messages.length;
  await eventually(() => {
    assert.ok(manager.ok && manager.value?.tell({ MARK: 1 }));
  }, { withinMs: 10_000 });
  await receiver.heard(/^MARK=1\|/, from);
  return receiver.messages.filter((message) => !message.startsWith("MARK=")).length;
}

test("an abstract name is one too, and who asks for no beats gets none", async () => {
  const name = `@shishi-test-${randomUUID()}`;
  const receiver = await startReceiver(name);
  const shishi = await startShishi({
    args: NOWHERE,
    env: { NOTIFY_SOCKET: name },
  });
  try {
    await receiver.heard(/READY=1/);
    shishi.signal("SIGTERM");
    await receiver.heard(/STOPPING=1/);
    assert.equal((await shishi.exited).code, 0);
    const heard = receiver.messages.join("\n");
    assert.equal(heard.match(/READY=1/g)?.length, 1);
    assert.doesNotMatch(heard, /WATCHDOG/, "nobody has asked for beats");
  } finally {
    await shishi.close();
    await receiver.close();
  }
});

test("a manager that is gone, or was never there, costs nothing", async () => {
  assert.deepEqual(await serviceManager(openLibc, {}), { ok: true, value: null });
  const wrong = await serviceManager(openLibc, { NOTIFY_SOCKET: "vsock:2:1" });
  assert.match(wrong.ok ? "" : wrong.problem, /expected a path or @name/);
  const manager = await serviceManager(openLibc, { NOTIFY_SOCKET: "/nowhere/at/all" });
  assert.ok(manager.ok && manager.value !== null);
  assert.equal(manager.value.tell({ READY: 1 }), false);
  assert.equal(manager.value.watchdogMs, null);
});

test("a watchdog for another process is none of ours; ours is told twice as often as it asks", async () => {
  const asked = async (env: Record<string, string>) => {
    const manager = await serviceManager(openLibc, {
      NOTIFY_SOCKET: "/x",
      WATCHDOG_USEC: "3000000",
      ...env,
    });
    return manager.ok && manager.value?.watchdogMs;
  };
  assert.equal(await asked({}), 1500);
  assert.equal(await asked({ WATCHDOG_PID: "1" }), null);
  assert.equal(await asked({ WATCHDOG_USEC: "no" }), null);
});

test("the time beside RELOADING=1 is the monotonic clock's", async () => {
  const manager = await serviceManager(openLibc, { NOTIFY_SOCKET: "/x" });
  assert.ok(manager.ok && manager.value !== null);
  const before = manager.value.monotonicUsec();
  const after = manager.value.monotonicUsec();
  // Since the machine's boot: more than this process has lived.
  assert.ok(before > 1_000_000n && after >= before);
});

test("addresses: a path ends in a byte 0, an abstract name begins with one", () => {
  assert.deepEqual([...unixAddress("/a")!], [1, 0, 47, 97, 0]);
  assert.deepEqual([...unixAddress("@a")!], [1, 0, 0, 97]);
  for (const name of ["", "@", "relative", "vsock:1:2", "/" + "x".repeat(107)]) {
    assert.equal(unixAddress(name), null, name);
  }
});
