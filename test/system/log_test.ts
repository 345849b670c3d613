/** The log of a running collector: whoever reads it, or does not, ingest goes on and nothing is hidden. */

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { closeSync, constants, openSync, readSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { startFakeClickHouse } from "../kit/fake_clickhouse.ts";
import { freePort } from "../kit/free_port.ts";
import { testOnce } from "../kit/once.ts";
import { startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";
import { ledgerAtEnd, stopBy } from "./around.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const SHISHI = join(ROOT, "dist/shishi");
/** The source: only one of the runtimes opens stderr so that a write may wait. */
const SOURCE = process.versions["deno"] === undefined
  ? [process.execPath, join(ROOT, "src/main.ts")]
  : [
    process.execPath,
    "run",
    "-A",
    "-q",
    "--config",
    join(ROOT, "deno.json"),
    join(ROOT, "src/main.ts"),
  ];
const ROWS = 600;
/** What one holds while nobody reads. */
const PIPE_BYTES = 64 * 1024;

/** A collector with its stderr as `redirect` says, and how it ended. */
function startWith(redirect: string, args: readonly string[], cwd: string) {
  const child = spawn("sh", ["-c", `exec "$@" ${redirect}`, "sh", ...SOURCE, ...args], {
    cwd,
    env: { PATH: process.env.PATH ?? "", HOME: process.env.HOME ?? "" },
    stdio: "ignore",
  });
  let running = true;
  const exited = new Promise<number | null>((resolve) => {
    child.once("exit", (code) => {
      running = false;
      resolve(code);
    });
  });
  // Not child.kill(): after that one runtime tells the signal as the end, whatever the process did.
  const kill = (signal: NodeJS.Signals) => void (running && process.kill(child.pid!, signal));
  return { kill, exited };
}

const post = (url: string, body: string) => fetch(url, { method: "POST", body });
const stored = async (url: string) =>
  (await (await fetch(`${url}/api/status`)).json()).ledger.stored as number;

describe("log", () => {
  for (const how of ["a reader that stopped", "a reader that is gone", "a closed stderr"]) {
    test(`${how}: every row is stored, the end is 0`, async () => {
      const dir = tempDir("log");
      const fake = await startFakeClickHouse();
      fake.createTable("t", { n: "UInt32" });
      const port = await freePort();
      const fifo = join(dir, "fifo");
      spawnSync("mkfifo", [fifo]);
      const reader = openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK);
      const url = `http://127.0.0.1:${port}`;
      // Each row is a batch, and each batch a line: more than a pipe holds.
      const shishi = startWith(how === "a closed stderr" ? "2>&-" : `2>${fifo}`, [
        ...["--listen", `127.0.0.1:${port}`, "--clickhouse-url", fake.url, "--tables", "t"],
        ...["--log-level", "debug", "--max-block-size", "1", "--ack", "memory"],
      ], dir);
      let open = true;
      try {
        await eventually(async () => assert.ok((await fetch(`${url}/healthz`)).ok), {
          withinMs: 20_000,
        });
        if (how === "a reader that is gone") {
          closeSync(reader);
          open = false;
        }
        const rows = Array.from({ length: ROWS }, (_, n) => `{"n":${n}}\n`).join("");
        assert.equal((await post(`${url}/events/t`, rows)).status, 202);
        await eventually(async () => assert.equal(await stored(url), ROWS), { withinMs: 40_000 });
        let text = "";
        if (how === "a reader that stopped") {
          const reading = readAll(reader, (part) => text += part);
          shishi.kill("SIGTERM");
          assert.equal(await shishi.exited, 0);
          await reading();
          const lines = text.trimEnd().split("\n").map((line) => JSON.parse(line));
          assert.equal(lines.at(-1).message, "stopped");
          assert.equal(lines.at(-1).stored, ROWS);
          assert.ok(lines.length > ROWS, `${lines.length} lines`);
          assert.ok(text.length > PIPE_BYTES, `${text.length} characters fit a pipe`);
        } else {
          shishi.kill("SIGTERM");
          assert.equal(await shishi.exited, 0);
        }
      } finally {
        shishi.kill("SIGKILL");
        await shishi.exited;
        if (open) closeSync(reader);
        await fake.close();
        removeDir(dir);
      }
    });
  }

  testOnce(
    "what repeats is counted, and nothing is untold at the end; the ledger is the last line",
    async () => {
      const away = await freePort();
      const shishi = await startShishi({
        args: ["--clickhouse-url", `http://127.0.0.1:${away}`, "--shutdown-timeout", "0s"],
      });
      try {
        assert.equal((await shishi.post({ eventType: "a" })).status, 202);
        await eventually(async () => {
          const { text } = await shishi.get("/metrics");
          const failed = /shishi_insert_errors_total\{.*\} (\d+)/.exec(text)?.[1];
          assert.ok(Number(failed) >= 3, `${failed} failed`);
        }, { withinMs: 20_000 });
        const failures = () =>
          shishi.lines().filter(({ message }) => `${message}`.startsWith("insert f"));
        assert.equal(failures().length, 1);
        assert.equal((await stopBy(shishi)).code, 0);
        const [first, rest] = failures();
        assert.deepEqual([first?.attempt, first?.code, first?.table], [1, 0, "analytics_events"]);
        assert.match(`${first?.batch}`, /^[0-9a-f-]{36}$/);
        assert.ok(Number(rest?.repeated) >= 2, JSON.stringify(rest));
        assert.equal(rest?.attempt, Number(rest?.repeated) + 1);
        assert.equal(ledgerAtEnd(shishi).message, "stopped; 1 rows wait on disk");
      } finally {
        await shishi.close();
      }
    },
  );

  test("readable and coloured on a terminal, unless NO_COLOR is set", () => {
    const dir = tempDir("log");
    const onTerminal = (env: Record<string, string>) =>
      spawnSync("script", ["-qec", `exec ${SHISHI} --listen 192.0.2.1:1`, "/dev/null"], {
        cwd: dir,
        // Empty, not left out: Deno hands on its own variables too.
        env: { PATH: process.env.PATH ?? "", TERM: "xterm", NO_COLOR: "", ...env },
        encoding: "utf8",
      }).stdout;
    const line = /^\d\d:\d\d:\d\d\.\d{3} ERROR cannot start: cannot listen on 192\.0\.2\.1:1: /;
    const last = (text: string) => text.replaceAll("\r", "").trimEnd().split("\n").at(-1) ?? "";
    const colored = onTerminal({});
    assert.ok(colored.includes("\u001b[31mERROR"), colored);
    for (const env of [{ NO_COLOR: "1" }, { TERM: "dumb" }] as Record<string, string>[]) {
      assert.match(last(onTerminal(env)), line);
    }
    removeDir(dir);
  });
});

/** Reads a pipe until its writers are gone, which the answer waits for. */
function readAll(file: number, take: (text: string) => void): () => Promise<void> {
  const buffer = new Uint8Array(65_536);
  const decoder = new TextDecoder();
  const done = eventually(() => {
    while (true) {
      const bytes = readSync(file, buffer, 0, buffer.length, null);
      if (bytes === 0) return;
      take(decoder.decode(buffer.subarray(0, bytes), { stream: true }));
    }
  }, { withinMs: 20_000, everyMs: 5 });
  return () => done;
}
