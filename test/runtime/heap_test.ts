/** The heap of the binary, which bounds it for itself. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, readFileSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { testOnce } from "../kit/once.ts";
import { ON_BUN, startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";

const RAM_SIZE = "BUN_JSC_forceRAMSize";
const PLAIN = ["--clickhouse-url", "http://127.0.0.1:1"];

const seen = (pid: number, file: string) =>
  readFileSync(`/proc/${pid}/${file}`, "utf8").split("\0").filter((text) => text !== "");
const bounds = (pid: number) => seen(pid, "environ").filter((each) => each.startsWith("BUN_JSC_"));

test("the binary is one process, under its name, with a bound for its heap", async () => {
  // Of the source and of other runtimes nothing is changed.
  const shishi = await startShishi({ args: PLAIN });
  try {
    assert.deepEqual(bounds(shishi.pid), ON_BUN ? [`${RAM_SIZE}=400000000`] : []);
    if (!ON_BUN) return;
    assert.equal(readFileSync(`/proc/${shishi.pid}/comm`, "utf8"), "shishi\n");
    assert.deepEqual(seen(shishi.pid, "cmdline").slice(1, 3), PLAIN);
    assert.equal(shishi.lines().filter(({ message }) => message === "listening").length, 1);
  } finally {
    await shishi.close();
  }
});

test("a bound that the environment has stays as it is", async () => {
  const shishi = await startShishi({ args: PLAIN, env: { [RAM_SIZE]: "123456789" } });
  try {
    assert.deepEqual(bounds(shishi.pid), [`${RAM_SIZE}=123456789`]);
  } finally {
    await shishi.close();
  }
});

const BINARY = fileURLToPath(new URL("../../dist/shishi", import.meta.url));
const SERVE = ["serve", ...PLAIN, "--listen", "127.0.0.1:0"];
/** A shell that becomes the program `$1` under the name `$0`, and one whose file is gone by then. */
const NAMED = 'program=$1; shift; exec -a "$0" "$program" "$@"';
const GONE = 'exec 9<"$1"; rm "$1"; shift; exec -a "$0" /proc/self/fd/9 "$@"';

for (
  const [what, shell, name, bounded] of [
    ["called by a name that is looked for in PATH", NAMED, "shishi", true],
    ["called by a path that leads nowhere", NAMED, "/not/there/shishi", false],
    ["not there any more", GONE, "shishi", false],
  ] as const
) {
  // The system refuses the last one: nothing of that stands between the lines of the log.
  testOnce(`the binary runs when it is ${what}`, async () => {
    const dir = tempDir("heap");
    const program = join(dir, "other-name");
    if (shell === GONE) copyFileSync(BINARY, program);
    else symlinkSync(BINARY, program);
    const child = spawn("bash", ["-c", shell, name, program, ...SERVE], {
      cwd: dir,
      env: { PATH: process.env["PATH"] },
      stdio: ["ignore", "ignore", "pipe"],
    });
    let stderr = "";
    child.stderr.on("data", (bytes) => stderr += String(bytes));
    const ended = once(child, "exit");
    try {
      await eventually(() => assert.match(stderr, /"listening"/), { withinMs: 10_000 });
      assert.equal(bounds(child.pid!).length, bounded ? 1 : 0);
      for (const line of stderr.trim().split("\n")) JSON.parse(line);
    } finally {
      child.kill("SIGKILL");
      await ended;
      removeDir(dir);
    }
  });
}
