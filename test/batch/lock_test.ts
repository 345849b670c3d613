import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { after, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { identify, type Identity, isAlive, parseIdentity } from "../../src/spool/identity.ts";
import { BEAT_MS, type Lock, STALE_MS, takeLock, WATCH_MS } from "../../src/spool/lock.ts";
import { writeLock } from "../../src/spool/lock_file.ts";
import type { Clock } from "../../src/contracts.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";

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

const me = identify();
/** Cannot be looked at from here, unlike this process. */
const elsewhere: Identity = { ...me, pid: 1, started: "1", space: "pid:[1]", host: "elsewhere" };
const gone: Identity = { ...me, started: "1" };

const until = (seen: () => boolean) =>
  eventually(() => assert.ok(seen()), { withinMs: 5000, everyMs: 5 });

async function take(dataDir: string, who = me): Promise<Lock> {
  const taken = await takeLock(dataDir, { clock, me: who });
  assert.ok("release" in taken, JSON.stringify(taken));
  return taken;
}

async function refused(dataDir: string, who = me): Promise<string> {
  const taken = await takeLock(dataDir, { clock, me: who });
  assert.ok("problem" in taken, "it was taken");
  return taken.problem;
}

async function leftBy(owner: Identity, agoMs = 0): Promise<string> {
  const dataDir = folder();
  mkdirSync(dataDir);
  const path = join(dataDir, "lock");
  await writeLock(path, owner, crypto.randomUUID());
  const touchedS = (Date.now() - agoMs) / 1000;
  utimesSync(path, touchedS, touchedS);
  return dataDir;
}

describe("a data folder", () => {
  test("is made, private, and belongs to one", async () => {
    const dataDir = join(folder(), "deep/er");
    const lock = await take(dataDir);
    assert.equal(lock.takenOver, false);
    assert.equal(statSync(dataDir).mode & 0o777, 0o700);
    assert.equal(statSync(join(dataDir, "lock")).mode & 0o777, 0o600);
    assert.equal(JSON.parse(readFileSync(join(dataDir, "lock"), "utf8")).pid, process.pid);
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

describe("the lock of an owner on this machine", () => {
  test("that has ended, been killed, or left its pid to another is taken over at once", async () => {
    const child = spawn("sleep", ["60"]);
    await once(child, "spawn");
    const stat = readFileSync(`/proc/${child.pid}/stat`, "utf8");
    const started = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]!;
    const owner = { ...me, pid: child.pid!, started };
    const dataDir = await leftBy(owner);
    assert.match(await refused(dataDir), new RegExp(`\\(pid ${child.pid}\\)`));
    child.kill("SIGKILL");
    await once(child, "exit");
    const lock = await take(dataDir);
    assert.equal(lock.takenOver, true);
    await lock.release();
    await (await take(await leftBy(gone))).release();
  });

  test("that was started again as pid 1 of its container is taken over at once", async () => {
    const inside = { ...me, pid: process.pid };
    const beganMs = performance.now();
    await (await take(await leftBy({ ...inside, started: "42" }), inside)).release();
    assert.ok(performance.now() - beganMs < WATCH_MS / 20);
  });

  const texts: [what: string, text: string][] = [
    ["empty, as a power cut leaves it", ""],
    ["torn", '{"pid":12,"sta'],
    ["of somebody else", "12345\n"],
    ["without a nonce", JSON.stringify(me)],
    ["with a nonce that is a path", JSON.stringify({ ...me, nonce: "../../x" })],
  ];
  for (const [what, text] of texts) {
    test(`a lock file ${what}: taken over`, async () => {
      const dataDir = folder();
      mkdirSync(dataDir);
      writeFileSync(join(dataDir, "lock"), text);
      const lock = await take(dataDir);
      assert.equal(lock.takenOver, true);
      assert.match(await refused(dataDir), /in use/);
      await lock.release();
      assert.deepEqual(readdirSync(dataDir), []);
    });
  }
});

describe("the lock of an owner that cannot be looked at", () => {
  test("is respected while it is touched", async () => {
    const dataDir = folder();
    const lock = await take(dataDir, elsewhere);
    assert.match(await refused(dataDir), /\(pid 1 on elsewhere\)/);
    await lock.release();
    await (await take(dataDir)).release();
  });

  test("is taken over when it is not", async () => {
    const beganMs = performance.now();
    const lock = await take(await leftBy({ ...elsewhere, boot: "another" }));
    assert.ok(performance.now() - beganMs >= WATCH_MS / 20);
    assert.equal(lock.takenOver, true);
    await lock.release();
  });

  test("is not watched when the machine or its container began anew long after it", async () => {
    for (const owner of [{ ...me, boot: "before" }, { ...me, space: "pid:[1]" }, elsewhere]) {
      const beganMs = performance.now();
      await (await take(await leftBy(owner, STALE_MS + 1000))).release();
      assert.ok(performance.now() - beganMs < WATCH_MS / 20, JSON.stringify(owner));
    }
  });

  test("on another host is watched however old it seems: clocks differ", async () => {
    const host = { ...elsewhere, boot: "another" };
    const dataDir = await leftBy(host, 3_600_000);
    const path = join(dataDir, "lock");
    let beats = 0;
    const beat = setInterval(() => utimesSync(path, ++beats, beats), 20);
    assert.match(await refused(dataDir), /on elsewhere/);
    clearInterval(beat);
  });

  test("with a content that nobody understands is respected while it is touched", async () => {
    const dataDir = folder();
    mkdirSync(dataDir);
    const path = join(dataDir, "lock");
    writeFileSync(path, "?");
    let beats = 0;
    const beat = setInterval(() => utimesSync(path, ++beats, beats), 2);
    assert.match(await refused(dataDir), /in use by another collector; stop that one/);
    clearInterval(beat);
  });
});

describe("an owner", () => {
  test("finds out that its lock was taken, once, and leaves it alone", async () => {
    const dataDir = folder();
    let lost = 0;
    const first = await takeLock(dataDir, { clock, me: gone, onLost: () => lost++ });
    const second = await take(dataDir);
    await until(() => lost === 1);
    await sleep(3 * BEAT_MS / 20);
    assert.equal(lost, 1);
    if ("release" in first) await first.release();
    assert.match(await refused(dataDir), /in use/);
    await second.release();
  });

  test("puts its lock back when somebody deletes it, also with the folder", async () => {
    const dataDir = folder();
    const lock = await take(dataDir);
    rmSync(dataDir, { recursive: true });
    await sleep(2 * BEAT_MS / 20);
    mkdirSync(dataDir);
    await until(() => readdirSync(dataDir).includes("lock"));
    assert.match(await refused(dataDir), /in use/);
    await lock.release();
    assert.deepEqual(readdirSync(dataDir), []);
  });

  test("may release twice, and after the folder is gone", async () => {
    const dataDir = folder();
    const lock = await take(dataDir);
    rmSync(dataDir, { recursive: true });
    await lock.release();
    await lock.release();
  });
});

describe("several starters at once: exactly one has it", () => {
  const before: [string, (dataDir: string) => Promise<void>][] = [
    ["no lock", async (dataDir) => void await Promise.resolve(mkdirSync(dataDir))],
    ["a dead owner's lock", async (dataDir) => {
      mkdirSync(dataDir);
      await writeLock(join(dataDir, "lock"), gone, crypto.randomUUID());
    }],
    ["a lock that was being taken over when its taker died", async (dataDir) => {
      mkdirSync(dataDir);
      const path = join(dataDir, "lock");
      const nonces = [crypto.randomUUID(), crypto.randomUUID(), crypto.randomUUID()];
      await writeLock(path, gone, nonces[0]!);
      await writeLock(`${path}.${nonces[0]}`, gone, nonces[1]!);
      await writeLock(`${path}.${nonces[1]}`, gone, nonces[2]!);
    }],
    ["an empty lock", async (dataDir) => {
      mkdirSync(dataDir);
      await Promise.resolve(writeFileSync(join(dataDir, "lock"), ""));
    }],
  ];
  for (const [what, prepare] of before) {
    test(`${what}, many rounds`, async () => {
      for (let round = 0; round < 15; round++) {
        const dataDir = folder();
        await prepare(dataDir);
        const taken = await Promise.all(
          Array.from({ length: 12 }, async () => {
            await sleep(Math.random() * 3);
            return await takeLock(dataDir, { clock, me });
          }),
        );
        const locks = taken.filter((each) => "release" in each);
        assert.equal(locks.length, 1);
        for (const lock of locks) await lock.release();
      }
    });
  }

  test("one that releases while others try: never two", async () => {
    const dataDir = folder();
    let holders = 0;
    let had = 0;
    await Promise.all(Array.from({ length: 8 }, async () => {
      for (let tries = 0; tries < 40; tries++) {
        const taken = await takeLock(dataDir, { clock, me });
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

  test("real processes, over the lock of one that was killed", async () => {
    const dataDir = await leftBy(gone);
    for (let round = 0; round < 2; round++) {
      const starters = Array.from({ length: 4 }, () => starter(dataDir));
      const said = await Promise.all(starters.map(({ child }) => firstLine(child)));
      // Killed: the next round takes it over.
      for (const { child } of starters) child.kill("SIGKILL");
      await Promise.all(starters.map(({ ended }) => ended));
      assert.equal(said.filter((line) => line === "taken\n").length, 1, said.join(""));
      assert.equal(said.filter((line) => line.includes("is in use by")).length, 3, said.join(""));
    }
  });
});

function starter(dataDir: string): { child: ChildProcess; ended: Promise<unknown> } {
  const script = fileURLToPath(new URL("./lock_taker.ts", import.meta.url));
  const args = "deno" in process.versions ? ["run", "-A", script] : [script];
  const child = spawn(process.execPath, [...args, dataDir], {
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

  test("a pid that nobody has does not", () => {
    assert.equal(isAlive({ ...me, pid: 2 ** 30 }, me), false);
  });

  test("a zombie does not", async () => {
    // `exec` leaves the child with a parent that never waits; it must not end before that.
    const shell = spawn("sh", ["-c", "sleep 0.3 & echo $!; exec sleep 60"], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const pid = Number(await firstLine(shell));
    await until(() => readFileSync(`/proc/${pid}/stat`, "utf8").includes(") Z "));
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const started = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]!;
    assert.equal(isAlive({ ...me, pid, started }, me), false);
    shell.kill("SIGKILL");
    await once(shell, "exit");
  });

  test("an identity is read back, and nothing else is taken for one", () => {
    assert.deepEqual(parseIdentity(JSON.parse(JSON.stringify(me))), me);
    for (
      const value of [null, 5, "x", [], {}, { ...me, pid: "1" }, { ...me, pid: 0 }, {
        ...me,
        boot: 1,
      }]
    ) assert.equal(parseIdentity(value), null);
  });
});
