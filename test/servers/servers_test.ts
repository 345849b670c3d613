/**
 * The servers that the other tests stand on: they start, answer, keep their data, and go.
 * Runs once: they are processes of their own, started the same way by both runtimes.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import {
  type ClickHouse,
  startClickHouse,
  startInflux,
  startKafka,
  startMariadb,
  startNats,
  startOldClickHouse,
  startPostgres,
  startRedis,
} from "../kit/servers.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";
import { reach } from "./reach.ts";

const clickhouses: [string, () => Promise<ClickHouse>, RegExp][] = [
  ["embedded ClickHouse", startClickHouse, /^26\./],
  ["ClickHouse 18.16", startOldClickHouse, /^18\.16\./],
];

for (const [name, start, version] of clickhouses) {
  test(`${name} answers, keeps its rows through SIGKILL, and is gone when closed`, async () => {
    const server = await start();
    const pids = [server.pid];
    try {
      assert.match(await server.query("SELECT version()"), version);
      await server.query("CREATE TABLE t (n UInt64) ENGINE = MergeTree ORDER BY n");
      await server.query("INSERT INTO t VALUES (7)");
      await assert.rejects(server.query("SELECT * FROM nowhere"), /nowhere/);
      await server.kill();
      assert.equal(server.pid, 0);
      await assert.rejects(server.query("SELECT 1"));
      await server.start();
      pids.push(server.pid);
      assert.equal(await server.query("SELECT n FROM t"), "7");
    } finally {
      await server.close();
    }
    for (const pid of pids) assert.equal(isAlive(pid), false);
  });
}

test("two embedded ClickHouses run side by side", async () => {
  const [one, two] = await Promise.all([startClickHouse(), startClickHouse()]);
  try {
    await one.query("CREATE TABLE only_one (n UInt8) ENGINE = MergeTree ORDER BY n");
    assert.equal(await two.query("EXISTS only_one"), "0");
  } finally {
    await Promise.all([one.close(), two.close()]);
  }
});

test("nats-server speaks websocket and is gone when closed", async () => {
  const server = await startNats("max_payload: 1000");
  const pid = server.pid;
  try {
    assert.match(await firstFrame(server.url), /"max_payload":1000\b/);
    await server.kill();
    await server.start();
    assert.match(await firstFrame(server.url), /^INFO /);
  } finally {
    await server.close();
  }
  assert.equal(isAlive(pid), false);
});

test("InfluxDB answers, keeps its points through SIGKILL, and is gone when closed", async () => {
  const server = await startInflux();
  const pid = server.pid;
  try {
    await server.query("", 'CREATE DATABASE "d"');
    const written = await fetch(`${server.url}/write?db=d`, {
      method: "POST",
      body: "m,host=x value=5i 1000000000\nm,host=y value=6i 2000000000",
    });
    assert.equal(written.status, 204);
    await server.kill();
    await server.start();
    assert.deepEqual(await server.query("d", "SELECT sum(value) AS total FROM m GROUP BY host"), [
      { name: "m", host: "x", time: "1970-01-01T00:00:00Z", total: 5 },
      { name: "m", host: "y", time: "1970-01-01T00:00:00Z", total: 6 },
    ]);
    await assert.rejects(server.query("d", "SELEKT"), /error parsing/);
  } finally {
    await server.close();
  }
  assert.equal(isAlive(pid), false);
});

test("Kafka answers its own tools, holds still when frozen, and is gone when closed", async () => {
  const server = await startKafka();
  const pid = server.pid;
  try {
    const brokers = ["--bootstrap-server", `127.0.0.1:${server.port}`];
    const make = [...brokers, "--create", "--topic", "made", "--partitions", "3"];
    const made = server.tool("org.apache.kafka.tools.TopicCommand", make);
    server.freeze();
    await eventually(() => assert.match(stateOf(server.pid), /^T/), { withinMs: 5_000 });
    server.thaw();
    assert.match(await made, /Created topic made/);
  } finally {
    await server.close();
  }
  assert.equal(isAlive(pid), false);
});

test("Redis keeps what it has taken through SIGKILL, holds still when frozen, and is gone when closed", async () => {
  const server = await startRedis();
  const pid = server.pid;
  try {
    await server.call("LPUSH", "l", "one", "zwei ü");
    await assert.rejects(server.call("XLEN", "l"), /WRONGTYPE/);
    await server.kill();
    await assert.rejects(server.call("PING"));
    await server.start();
    assert.deepEqual(await server.call("LRANGE", "l", 0, -1), ["zwei ü", "one"]);
    server.freeze();
    await eventually(() => assert.match(stateOf(server.pid), /^T/), { withinMs: 5_000 });
    const asked = server.call("LLEN", "l");
    server.thaw();
    assert.equal(await asked, 2);
  } finally {
    await server.close();
  }
  assert.equal(isAlive(pid), false);
});

for (
  const [name, start] of [["PostgreSQL", startPostgres], ["MariaDB", startMariadb]] as const
) {
  test(`${name} is stopped and killed with all of its processes, and started again`, async () => {
    const server = await start();
    const pid = server.pid;
    try {
      await server.kill();
      assert.equal(server.pid, 0);
      await server.start();
      await reach(server.port);
      server.freeze();
      await eventually(() => assert.match(stateOf(server.pid), /^T/), { withinMs: 5_000 });
      server.thaw();
    } finally {
      await server.close();
    }
    assert.equal(isAlive(pid), false);
    await assert.rejects(reach(server.port));
  });
}

test("a crash of the tests leaves neither server nor folder behind", async () => {
  const bun = fileURLToPath(new URL("../../node_modules/.bin/bun", import.meta.url));
  const kit = fileURLToPath(new URL("../kit/servers.ts", import.meta.url));
  const script = `
    const kit = await import(${JSON.stringify(kit)});
    const servers = await Promise.all(
      [kit.startClickHouse(), kit.startOldClickHouse(), kit.startNats(), kit.startInflux()]);
    console.log(servers.map((server) => server.pid).join(" "));
    setInterval(() => {}, 1000);`;
  // Nobody else's folders come and go in it.
  const place = tempDir("crash");
  const crashing = spawn(bun, ["-e", script], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, TMPDIR: place },
  });
  let pids: number[] = [];
  const gone = new Promise((resolve) => crashing.once("close", resolve));
  try {
    const line = await new Promise<string>((resolve, reject) => {
      let text = "";
      crashing.stdout.on("data", (data) => {
        text += data;
        if (text.includes("\n")) resolve(text);
      });
      crashing.once("exit", (code, signal) => reject(new Error(`ended with ${signal ?? code}`)));
    });
    pids = line.trim().split(" ").map(Number);
    assert.equal(pids.length, 4);
    for (const pid of pids) assert.equal(isAlive(pid), true);
    assert.equal(readdirSync(place).length, 4);
  } finally {
    crashing.removeAllListeners("exit");
    crashing.kill("SIGKILL");
  }
  await gone;
  await eventually(() => {
    for (const pid of pids) assert.equal(isAlive(pid), false);
    assert.deepEqual(readdirSync(place), []);
  }, { withinMs: 10_000 });
  removeDir(place);
});

/** A zombie, as a container without an init process keeps them, counts as gone. */
function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  return !stateOf(pid).startsWith("Z");
}

/** As Linux has it, e.g. `T` of a process that is stopped; "" where it is not known. */
function stateOf(pid: number): string {
  const stat = `/proc/${pid}/stat`;
  return existsSync(stat) ? readFileSync(stat, "utf8").split(") ").at(-1) ?? "" : "";
}

function firstFrame(url: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => {
      socket.onerror = null;
      socket.onclose = () => resolve(new TextDecoder().decode(data as ArrayBuffer));
      socket.close();
    };
    socket.onerror = () => reject(new Error(`no websocket at ${url}`));
  });
}
