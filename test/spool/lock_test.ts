/** One collector on one data folder, whoever keeps the lock: the kernel, or the file by its name. */

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import {
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { after, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { Clock } from "../../src/contracts.ts";
import { openFlock } from "../../src/runtime/libc.ts";
import {
  BEAT_MS,
  type Flock,
  holderOf,
  isAlive,
  type Lock,
  type Owner,
  takeLock,
  thisProcess,
  WATCH_MS,
} from "../../src/spool/lock.ts";
import { ON_BUN } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually, patient } from "../kit/wait.ts";

const root = tempDir("lock");
after(() => removeDir(root));
let folders = 0;
const folder = () => join(root, `d${folders++}`);

/** Twenty times as fast as time. */
const clock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now() * 20,
  after(delayMs, task) {
    const timer = setTimeout(task, delayMs / 20);
    return () => clearTimeout(timer);
  },
  random: () => Math.random(),
};

const me = thisProcess();
/** Cannot be looked at from here, unlike this process. */
const elsewhere: Owner = { ...me, pid: 1, started: "1", space: "pid:[1]", host: "elsewhere" };
const afar: Owner = { ...elsewhere, boot: "another" };
const gone: Owner = { ...me, started: "1" };

/** Where the kernel refuses, as some network file systems do: that is no affair of the runtime. */
const refusing: Flock = () => false;
const WAYS: (readonly [way: string, flock: () => Promise<Flock | null>])[] = [
  ["by the kernel", openFlock],
  ["by name", () => Promise.resolve(null)],
  ...ON_BUN
    ? [["by name, for the kernel refuses", () => Promise.resolve(refusing)] as const] as const
    : [],
];

const until = (seen: () => boolean) =>
  eventually(() => assert.ok(seen()), { withinMs: 5000, everyMs: 5 });

/** As version 0.1 left it. */
function leftBy(owner: Owner, more: Record<string, unknown> = {}): string {
  const dataDir = folder();
  mkdirSync(dataDir);
  const text = JSON.stringify({ ...owner, nonce: crypto.randomUUID(), ...more }) + "\n";
  writeFileSync(join(dataDir, "lock"), text);
  return dataDir;
}

const startOf = (pid: number) => {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]!;
};

test("this system has a flock, and a lock by the kernel says so", async () => {
  assert.ok(await openFlock() !== null);
  const dataDir = folder();
  const lock = await takeLock(dataDir, { clock, flock: openFlock });
  assert.equal(JSON.parse(readFileSync(join(dataDir, "lock"), "utf8")).flock, true);
  assert.ok("release" in lock);
  await lock.release();
});

for (const [way, flock] of WAYS) {
  const byKernel = way === "by the kernel";

  const take = async (dataDir: string, who = me, onLost = () => {}): Promise<Lock> => {
    const taken = await takeLock(dataDir, { clock, me: who, flock, onLost });
    assert.ok("release" in taken, JSON.stringify(taken));
    return taken;
  };

  const refused = async (dataDir: string, who = me): Promise<string> => {
    const taken = await takeLock(dataDir, { clock, me: who, flock });
    assert.ok("problem" in taken, "it was taken");
    return taken.problem;
  };

  describe(`a data folder ${way}`, () => {
    test("is made, private, and belongs to one", async () => {
      const dataDir = join(folder(), "deep/er");
      const lock = await take(dataDir);
      assert.equal(statSync(dataDir).mode & 0o777, 0o700);
      assert.equal(statSync(join(dataDir, "lock")).mode & 0o777, 0o600);
      const said = JSON.parse(readFileSync(join(dataDir, "lock"), "utf8"));
      assert.deepEqual([said.pid, said.host], [process.pid, me.host]);
      assert.ok(Math.abs(Date.parse(said.since) - Date.now()) < 60_000, said.since);
      assert.equal(
        await refused(dataDir),
        `the data folder ${dataDir} is in use by another collector (pid ${process.pid}); stop that ` +
          `one, or give this one another --data-dir (if there is none, delete ${dataDir}/lock)`,
      );
      await lock.release();
      assert.deepEqual(readdirSync(dataDir), []);
      await (await take(dataDir)).release();
    });

    test("that cannot be used: why", async () => {
      const dataDir = folder();
      writeFileSync(dataDir, "a file");
      assert.match(await refused(dataDir), /^cannot lock the data folder \S+: EEXIST/);
      assert.match(await refused(join(dataDir, "x")), /^cannot lock the data folder \S+: ENOTDIR/);
    });

    test("keeps other files, also those that look alike", async () => {
      const dataDir = folder();
      mkdirSync(dataDir);
      writeFileSync(join(dataDir, "locksmith"), "");
      writeFileSync(join(dataDir, "version"), "");
      await (await take(dataDir)).release();
      assert.deepEqual(readdirSync(dataDir).sort(), ["locksmith", "version"]);
    });
  });

  describe(`the lock of an owner on this machine, ${way}`, () => {
    test("that lives is respected, also one of version 0.1; dead it is taken over at once", async () => {
      const child = spawn("sleep", ["60"]);
      await once(child, "spawn");
      const dataDir = leftBy({ ...me, pid: child.pid!, started: startOf(child.pid!) });
      assert.match(await refused(dataDir), new RegExp(`\\(pid ${child.pid}\\)`));
      child.kill("SIGKILL");
      await once(child, "exit");
      const lock = await take(dataDir);
      assert.match(await refused(dataDir), new RegExp(`\\(pid ${process.pid}\\)`));
      await lock.release();
      await (await take(leftBy(gone))).release();
    });

    test("that was started again as pid 1 of its container is taken over at once", async () => {
      const beganMs = performance.now();
      await (await take(leftBy({ ...me, started: "42" }))).release();
      assert.ok(performance.now() - beganMs < patient(WATCH_MS / 20));
    });

    const texts: [what: string, text: string][] = [
      ["empty, as a power cut leaves it", ""],
      ["torn", '{"pid":12,"sta'],
      ["of another program", "12345\n"],
      ["of a process that cannot be", JSON.stringify({ ...me, pid: 0 })],
      ["without a host", JSON.stringify({ ...me, host: undefined })],
      ["without a process", "null"],
    ];
    for (const [what, text] of texts) {
      test(`a lock file ${what}: taken over`, async () => {
        const dataDir = folder();
        mkdirSync(dataDir);
        writeFileSync(join(dataDir, "lock"), text);
        const lock = await take(dataDir);
        assert.match(await refused(dataDir), /in use/);
        await lock.release();
        assert.deepEqual(readdirSync(dataDir), []);
      });
    }
  });

  describe(`the lock of an owner that cannot be looked at, ${way}`, () => {
    test("is respected while it is touched", async () => {
      const dataDir = folder();
      const lock = await take(dataDir, elsewhere);
      assert.match(await refused(dataDir), /\(pid 1 on elsewhere\)/);
      await lock.release();
      await (await take(dataDir)).release();
    });

    test("also when the kernel would give it, as on a network's disk, and however old it seems", async () => {
      const dataDir = leftBy(afar, { flock: byKernel });
      const path = join(dataDir, "lock");
      let beats = 0;
      const beat = setInterval(() => utimesSync(path, ++beats, beats), 20);
      assert.match(await refused(dataDir), /on elsewhere/);
      clearInterval(beat);
    });

    test("is taken over when it is not", async () => {
      for (const owner of [afar, elsewhere]) {
        const beganMs = performance.now();
        const lock = await take(leftBy(owner));
        assert.ok(performance.now() - beganMs >= WATCH_MS / 20 - 5);
        await lock.release();
      }
    });

    if (byKernel) {
      test("on this machine, before it or its container began anew: at once", async () => {
        for (const owner of [{ ...me, boot: "before" }, { ...me, space: "pid:[1]" }, elsewhere]) {
          const beganMs = performance.now();
          await (await take(leftBy(owner, { flock: true }))).release();
          assert.ok(performance.now() - beganMs < patient(WATCH_MS / 20), JSON.stringify(owner));
        }
      });
    }
  });

  describe(`an owner ${way}`, () => {
    test("finds out that its lock was taken, once, and leaves it alone", async () => {
      const dataDir = folder();
      let lost = 0;
      const first = await take(dataDir, me, () => lost++);
      // Another host takes it over while this process is halted.
      const path = join(dataDir, "lock");
      copyFileSync(path, `${path}.other`);
      unlinkSync(path);
      copyFileSync(`${path}.other`, path);
      unlinkSync(`${path}.other`);
      await until(() => lost === 1);
      await sleep(3 * BEAT_MS / 20);
      assert.equal(lost, 1);
      await first.release();
      assert.deepEqual(readdirSync(dataDir), ["lock"]);
    });

    test("that was taken for dead is told of it", async () => {
      const dataDir = folder();
      let lost = 0;
      // Without the kernel: it would not let go of it.
      const first = await takeLock(dataDir, { clock, me: gone, onLost: () => lost++ });
      const second = await take(dataDir);
      await until(() => lost === 1);
      if ("release" in first) await first.release();
      assert.match(await refused(dataDir), /in use/);
      await second.release();
    });

    test("puts its lock back when it is deleted, also with the folder", async () => {
      const dataDir = folder();
      const lock = await take(dataDir);
      rmSync(dataDir, { recursive: true });
      await sleep(2 * BEAT_MS / 20);
      mkdirSync(dataDir);
      await until(() => readdirSync(dataDir).includes("lock"));
      await until(() => readFileSync(join(dataDir, "lock"), "utf8") !== "");
      assert.match(await refused(dataDir), /in use/);
      await lock.release();
      assert.deepEqual(readdirSync(dataDir), []);
    });

    if (byKernel) {
      test("is locked before it says whose it is, when it is put back", async () => {
        const dataDir = folder();
        const path = join(dataDir, "lock");
        const real = (await flock())!;
        let said: string | null = null;
        const lock = await takeLock(dataDir, {
          clock,
          me,
          flock: () =>
            Promise.resolve((fd) => {
              said = readFileSync(path, "utf8");
              return real(fd);
            }),
        });
        assert.ok("release" in lock);
        said = null;
        rmSync(path);
        await until(() => said !== null);
        assert.equal(said, "");
        await lock.release();
      });
    }

    test("may release twice, and after the folder is gone", async () => {
      const dataDir = folder();
      const lock = await take(dataDir);
      rmSync(dataDir, { recursive: true });
      await lock.release();
      await lock.release();
    });
  });

  if (!byKernel) {
    test(`a taker that died half way, ${way}: the next goes on`, async () => {
      for (const [ago, text] of [[0, JSON.stringify(gone)], [60, ""]] as const) {
        const dataDir = leftBy(gone);
        const next = join(dataDir, "lock.next");
        writeFileSync(next, text);
        utimesSync(next, Date.now() / 1000 - ago, Date.now() / 1000 - ago);
        await (await take(dataDir)).release();
        assert.deepEqual(readdirSync(dataDir), []);
      }
    });
  }

  describe(`several starters at once ${way}: exactly one has it`, () => {
    const before: [string, () => string][] = [
      ["no lock", folder],
      ["a dead owner's lock", () => leftBy(gone)],
      ["an empty lock", () => {
        const dataDir = folder();
        mkdirSync(dataDir);
        writeFileSync(join(dataDir, "lock"), "");
        return dataDir;
      }],
    ];
    for (const [what, prepare] of before) {
      test(`${what}, many rounds`, async () => {
        for (let round = 0; round < (ON_BUN ? 15 : 5); round++) {
          const dataDir = prepare();
          const taken = await Promise.all(
            Array.from({ length: 12 }, async () => {
              await sleep(Math.random() * 3);
              return await takeLock(dataDir, { clock, me, flock });
            }),
          );
          const locks = taken.filter((each) => "release" in each);
          assert.equal(locks.length, 1);
          for (const lock of locks) await lock.release();
          assert.deepEqual(readdirSync(dataDir), []);
        }
      });
    }

    test("one that releases while others try: never two", async () => {
      const dataDir = folder();
      let holders = 0;
      let had = 0;
      await Promise.all(Array.from({ length: 8 }, async () => {
        for (let tries = 0; tries < 40; tries++) {
          const taken = await takeLock(dataDir, { clock, me, flock });
          if ("problem" in taken) continue;
          had++;
          assert.equal(++holders, 1);
          await sleep(Math.random());
          holders--;
          await taken.release();
        }
      }));
      assert.ok(had > 8, `${had}`);
    });

    // They know two ways.
    if (flock === WAYS[2]?.[1]) return;
    test("real processes, over the lock of one that was killed, whatever child it left", async () => {
      const dataDir = leftBy(gone);
      for (let round = 0; round < 2; round++) {
        const starters = Array.from({ length: 4 }, () => starter(dataDir, byKernel, "5"));
        const said = await Promise.all(starters.map(({ child }) => firstLine(child)));
        // Killed: the next round takes it over.
        for (const { child } of starters) child.kill("SIGKILL");
        await Promise.all(starters.map(({ ended }) => ended));
        assert.equal(said.filter((line) => line === "taken\n").length, 1, said.join(""));
        assert.equal(said.filter((line) => line.includes("is in use by")).length, 3, said.join(""));
      }
    });
  });
}

test("a collector that asks the kernel and one that cannot keep each other out", async () => {
  for (const [first, second] of [[WAYS[0]!, WAYS[1]!], [WAYS[1]!, WAYS[0]!]] as const) {
    const dataDir = folder();
    const lock = await takeLock(dataDir, { clock, flock: first[1] });
    assert.ok("release" in lock);
    const other = await takeLock(dataDir, { clock, flock: second[1] });
    assert.ok("busy" in other && other.busy, JSON.stringify(other));
    await lock.release();
  }
});

test("a full disk: the kernel keeps the lock all the same", async () => {
  // Where writing fails, reading goes on.
  const dataDir = folder();
  const full = { ...me, toJSON: () => assert.fail("ENOSPC") };
  const lock = await takeLock(dataDir, { clock, me: full, flock: openFlock });
  assert.ok("release" in lock);
  const other = await takeLock(dataDir, { clock, flock: openFlock });
  assert.ok("problem" in other && /is in use by another collector;/.test(other.problem));
  await lock.release();
});

function starter(dataDir: string, byKernel: boolean, childS: string) {
  const script = fileURLToPath(new URL("./lock_taker.ts", import.meta.url));
  const args = "deno" in process.versions ? ["run", "-A", script] : [script];
  const way = byKernel ? "kernel" : "name";
  const child = spawn(process.execPath, [...args, dataDir, way, childS], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  return { child, ended: once(child, "exit") };
}

async function firstLine(child: ChildProcess): Promise<string> {
  let text = "";
  child.stdout!.on("data", (piece) => text += piece);
  await until(() => text.includes("\n"));
  return text;
}

describe("who lives", () => {
  test("this process, by its own word", () => {
    assert.equal(isAlive(me, me), true);
    assert.equal(isAlive(gone, me), false);
    assert.equal(isAlive(elsewhere, me), "unknown");
    assert.equal(isAlive({ ...me, host: "renamed" }, me), me.space === "" ? "unknown" : true);
    assert.equal(isAlive({ ...me, boot: "before" }, me), "unknown");
  });

  test("a pid that no process has does not", () => {
    assert.equal(isAlive({ ...me, pid: 2 ** 30 }, me), false);
  });

  test("a zombie does not", async () => {
    // `exec` leaves the child with a parent that never waits; it must not end before that.
    const shell = spawn("sh", ["-c", "sleep 0.3 & echo $!; exec sleep 60"], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const pid = Number(await firstLine(shell));
    await until(() => readFileSync(`/proc/${pid}/stat`, "utf8").includes(") Z "));
    assert.equal(isAlive({ ...me, pid, started: startOf(pid) }, me), false);
    shell.kill("SIGKILL");
    await once(shell, "exit");
  });

  test("what a folder says of its holder", async () => {
    assert.equal(await holderOf(folder()), null);
    const holder = async (owner: Owner) => {
      const { pid, alive } = (await holderOf(leftBy(owner)))!;
      return [pid, alive];
    };
    assert.deepEqual(await holder(me), [process.pid, true]);
    assert.deepEqual(await holder(gone), [process.pid, false]);
    assert.deepEqual(await holder(elsewhere), [1, "unknown"]);
  });
});
