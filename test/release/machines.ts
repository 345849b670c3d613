/**
 * `bun test/release/machines.ts`: what is released for other machines starts there, as far as this one
 * can play them: Linux on arm64 and an old x64 by emulation, a Mac by reading the program as its kernel
 * does. No `_test.ts`: it takes a while and need run only once, not on every runtime. Throws when
 * something is wrong. Needs qemu-user-static and libc6-arm64-cross.
 */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { zstdCompressSync } from "node:zlib";
import { build, ROOT } from "../../.release/build.ts";
import { signAdHoc } from "../../.release/macho.ts";
import { fetchRuntime, readLock } from "../../.release/runtime.ts";
import { readStamp } from "../../.release/stamp.ts";
import { TARGETS } from "../../.release/targets.ts";
import { startClickHouse } from "../kit/servers.ts";
import { startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";

import { signatureOf } from "./mach_signature.ts";

const HERE = tempDir("machines");
/** What is emulated is slow, and has the machine not for itself. */
const PATIENCE_MS = 60_000;
const X64 = "qemu-x86_64-static -cpu";
const ARM64 = "qemu-aarch64-static -L /usr/aarch64-linux-gnu";

/** @param bytecode of what is not started it need not be there. @returns the program's path. */
function compiled(name: string, bytecode = true): string {
  const target = TARGETS.find((target) => target.name === name)!;
  const runtime = fetchRuntime(readLock(ROOT), target, join(ROOT, "dist/bun"));
  const outfile = join(HERE, name);
  const foreign = { target, runtime };
  build({ entry: "src/main.ts", outfile, stamp: readStamp(ROOT), foreign, bytecode });
  return outfile;
}

/** A command that runs `program` on a machine that it may not be made for. */
function emulated(emulator: string, program: string): string {
  const path = join(tempFolder(), "shishi");
  writeFileSync(path, `#!/bin/sh\nulimit -c 0\nexec ${emulator} ${program} "$@"\n`, {
    mode: 0o755,
  });
  return path;
}

let folders = 0;
function tempFolder(): string {
  const folder = join(HERE, `emulated-${folders++}`);
  mkdirSync(folder);
  return folder;
}

/** From the first word to the last: it says who it is, takes rows, stores them, stops. */
async function works(binary: string, target: string): Promise<void> {
  const { stdout, stderr } = spawnSync(binary, ["--version"], { encoding: "utf8" });
  assert.ok(stdout.includes(`, ${target})`), stdout + stderr);
  const clickhouse = await startClickHouse();
  const shishi = await startShishi({
    binary,
    args: ["--clickhouse-url", clickhouse.url, "--insert-timeout", "50s"],
    withinMs: PATIENCE_MS,
  }).catch(async (error) => {
    await clickhouse.close();
    throw error;
  });
  try {
    const rows = Array.from({ length: 500 }, (_, n) => ({ eventType: "é", properties: { n } }));
    const taken = await shishi.post(new Uint8Array(zstdCompressSync(JSON.stringify(rows))), {
      headers: { "content-encoding": "zstd", prefer: "wait=50" },
    });
    assert.equal(taken.status, 200, taken.text);
    const question = "SELECT sum(toUInt32(properties['n'])) FROM analytics_events";
    assert.equal((await clickhouse.query(question)).trim(), String(500 * 499 / 2));
    shishi.signal("SIGTERM");
    assert.deepEqual(await shishi.exited, { code: 0, signal: null }, shishi.stderr());
    assert.match(shishi.stderr(), /"stored":500,"dead":0,"held":0,"lost":0/);
  } finally {
    await shishi.close();
    await clickhouse.close();
  }
}

try {
  await works(emulated(ARM64, compiled("linux-arm64")), "linux-arm64");

  // A CPU of 2008 has SSE4.2 and no AVX; one of the year before lacks that too, and what it lacks ends
  // a program here as it does there.
  const x64 = compiled("linux-x64");
  await works(emulated(`${X64} Nehalem`, x64), "linux-x64");
  assert.notEqual(spawnSync(emulated(`${X64} Penryn`, x64), ["--version"]).status, 0);

  for (const name of ["darwin-arm64", "darwin-x64"]) {
    const program = readFileSync(compiled(name, false));
    const { pages, ...signature } = signatureOf(program);
    assert.deepEqual(signature, { adHoc: true, complete: true, broken: [] }, name);
    assert.ok(pages > 10_000, `${name}: ${pages} pages`);
    // Bun signs one of them itself, by that name, and so says what a signature has to be.
    if (name === "darwin-arm64") {
      assert.equal(Buffer.compare(signAdHoc(program, "a.out"), program), 0);
    }
    program[50_000_000]! ^= 1;
    assert.deepEqual(signatureOf(program).broken, [Math.floor(50_000_000 / 4096)], name);
  }
  assert.throws(() => signAdHoc(readFileSync(x64), "shishi"), /expected a Mach-O/);
} finally {
  removeDir(HERE);
}
