/** `shishi dead` as people run it: what it prints, its exit codes, what it leaves on disk. What is text alone is asked on one runtime. */

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { systemClock } from "../../src/kernel/time.ts";
import { takeLock } from "../../src/spool/lock.ts";
import { shown } from "../../src/commands/dead.ts";
import { batch, idsOf, lettersOf, namesIn, writerOf } from "../dead/kit.ts";
import { describeOnce, testOnce } from "../kit/once.ts";
import { runShishi } from "../kit/shishi.ts";
import { freePort } from "../kit/free_port.ts";
import { removeDir, tempDir, tempFile } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";
import { startFakeCollector } from "./fake_collector.ts";

const folders: string[] = [];
function folder(): string {
  folders.push(tempDir("dead"));
  return join(folders.at(-1)!, "data");
}
after(() => folders.forEach(removeDir));

const ROWS = [
  '{"n":"x"}',
  '{"n":"é\u009b[2J"}',
  '{"s":"\\"quoted\\"\\u0000"}',
  '{"n":18446744073709551615}',
];

/** Four letters of `t`, codes 27 and 26 in turn, and one of `events`. */
async function filled(): Promise<string> {
  const dataDir = folder();
  const letters = writerOf({ dataDir });
  const rows = ROWS.map((_, index) => ({
    index,
    code: index % 2 ? 26 : 27,
    message: `no ${index}\nx`,
  }));
  await letters.write(batch("b-1"), rows, ROWS);
  await letters.write(batch("b-2", "events", "event"), [{ index: 5, code: 117, message: "m" }], [
    '{"eventType":"a"}',
  ]);
  return dataDir;
}

const dead = (dataDir: string, ...args: string[]) =>
  runShishi(["dead", ...args, "--data-dir", dataDir], { env: { NO_COLOR: "1" } });

describe("ls", () => {
  testOnce("one line a table", async () => {
    const dataDir = await filled();
    const { code, stdout, stderr } = await dead(dataDir, "ls");
    assert.deepEqual([code, stderr], [0, ""]);
    const [head, events, t, ...more] = stdout.trimEnd().split("\n").map((line) =>
      line.split(/ {2,}/)
    );
    assert.deepEqual(head, ["TABLE", "LETTERS", "BYTES", "OLDEST", "NEWEST", "CODES"]);
    assert.deepEqual([events![0], events![1], events![5]], ["events", "1", "117: 1"]);
    assert.deepEqual([t![0], t![1], t![5]], ["t", "4", "26: 2, 27: 2"]);
    assert.equal(Number(t![2]), readFileSync(join(dataDir, "dead/t.ndjson")).length);
    assert.equal(t![3], (await lettersOf(dataDir))[0]?.time);
    assert.deepEqual(more, []);
  });

  testOnce("--json, of one table, with lines that cannot be read", async () => {
    const dataDir = await filled();
    writeFileSync(join(dataDir, "dead/t.ndjson"), "noise\n", { flag: "a" });
    const { code, stdout } = await dead(dataDir, "ls", "t", "--json");
    assert.equal(code, 0);
    const { oldest, newest, bytes, ...rest } = JSON.parse(stdout);
    assert.deepEqual(rest, {
      table: "t",
      letters: 4,
      codes: [{ code: 26, letters: 2 }, { code: 27, letters: 2 }],
      damaged: 1,
    });
    assert.ok(oldest <= newest && bytes > 0);
  });

  testOnce("nothing there: said, and nothing made", async () => {
    const dataDir = folder();
    for (const verb of ["ls", "show", "replay", "purge"]) {
      const { code, stdout, stderr } = await dead(
        dataDir,
        verb,
        ...(verb === "purge" ? ["--all"] : []),
      );
      assert.deepEqual([code, stdout], [0, ""], verb);
      assert.match(stderr, /no dead letters/);
    }
    assert.equal(existsSync(dataDir), false);
  });
});

describe("show", () => {
  testOnce("time, code, error on one line, and the row byte for byte", async () => {
    const dataDir = await filled();
    const { code, stdout, stderr } = await dead(dataDir, "show", "t");
    assert.deepEqual([code, stderr], [0, ""]);
    const shown = stdout.split("\n\n").map((letter) => letter.trimEnd().split("\n"));
    assert.deepEqual(shown.map((lines) => lines[2]), ROWS);
    assert.deepEqual(shown.map((lines) => lines[1]), ["no 0 x", "no 1 x", "no 2 x", "no 3 x"]);
    assert.match(shown[1]![0]!, /^\d{4}-\d\d-\d\dT[\d:.]+Z {2}t {2}code 26 {2}batch b-1 row 1$/);
  });

  testOnce("--json gives the letters as they are", async () => {
    const dataDir = await filled();
    const { stdout } = await dead(dataDir, "show", "--json", "t");
    assert.equal(stdout, readFileSync(join(dataDir, "dead/t.ndjson"), "utf8"));
  });

  testOnce("--limit and --code: the newest that match, and how many there are", async () => {
    const dataDir = await filled();
    const limited = await dead(dataDir, "show", "t", "--code", "27", "--limit=1", "--json");
    assert.deepEqual(JSON.parse(limited.stdout).row, ROWS[2]);
    assert.match(limited.stderr, /1 of 2 letters/);
    const all = await dead(dataDir, "show", "--json");
    assert.equal(all.stdout.trimEnd().split("\n").length, 5);
    const none = await dead(dataDir, "show", "--code", "1");
    assert.deepEqual([none.code, none.stdout], [0, ""]);
  });

  test("a lot of it reaches a slow reader whole", async () => {
    const dataDir = folder();
    const rows = Array.from({ length: 3_000 }, (_, n) => `{"n":${n},"s":"${"x".repeat(1_000)}"}`);
    const reasons = rows.map((_, index) => ({ index, code: 27, message: "m" }));
    await writerOf({ dataDir }).write(batch("b"), reasons, rows);
    const { code, stdout } = await dead(dataDir, "show", "--json", "--limit", "3000");
    assert.equal(code, 0);
    assert.deepEqual(stdout.trimEnd().split("\n").map((line) => JSON.parse(line).row), rows);
  });

  test("on a terminal nothing in a row can move the cursor", async () => {
    const dataDir = await filled();
    const lines = [...shown(await lettersOf(dataDir), false, true)];
    assert.ok(lines.some((line) => line.includes("\\u009b[2J")));
    // deno-lint-ignore no-control-regex
    const plain = lines.map((line) => line.replace(/\x1b\[\d*m/g, ""));
    assert.ok(plain.every((line) => !/\p{Cc}/u.test(line)));
  });
});

describe("purge", () => {
  testOnce("does nothing without --yes where nobody can be asked", async () => {
    const dataDir = await filled();
    const { code, stderr } = await dead(dataDir, "purge", "t");
    assert.equal(code, 2);
    assert.match(stderr, /4 dead letters of t would be deleted; expected --yes/);
    assert.equal((await idsOf(dataDir)).length, 4);
  });

  testOnce("deletes a table's letters and says how many", async () => {
    const dataDir = await filled();
    const { code, stdout } = await dead(dataDir, "purge", "t", "--yes");
    assert.deepEqual([code, stdout], [0, "4 letters deleted\n"]);
    assert.deepEqual(namesIn(dataDir), ["events.ndjson"]);
  });

  testOnce("lines that cannot be read go with the rest, and are named", async () => {
    const dataDir = await filled();
    writeFileSync(join(dataDir, "dead/t.ndjson"), "noise\n", { flag: "a" });
    const some = await dead(dataDir, "purge", "t", "--yes", "--code", "27");
    assert.equal(some.stdout, "2 letters deleted\n");
    const all = await dead(dataDir, "purge", "t", "--yes");
    assert.equal(all.stdout, "2 letters and 1 lines that cannot be read deleted\n");
    assert.deepEqual(namesIn(dataDir), ["events.ndjson"]);
  });

  testOnce("--all, --code, --before", async () => {
    const dataDir = await filled();
    const young = await dead(dataDir, "purge", "--all", "--yes", "--before", "24h");
    assert.deepEqual([young.code, young.stdout], [0, "0 letters deleted\n"]);
    const some = await dead(dataDir, "purge", "--all", "--yes", "--code", "27");
    assert.equal(some.stdout, "2 letters deleted\n");
    assert.deepEqual(await idsOf(dataDir), ["b-1 1", "b-1 3"]);
    assert.deepEqual((await lettersOf(dataDir)).map(({ row }) => row), [ROWS[1], ROWS[3]]);
    const old = await dead(dataDir, "purge", "--all", "--yes", "--before", "0s");
    assert.equal(old.stdout, "3 letters deleted\n");
    assert.deepEqual(namesIn(dataDir), []);
  });

  test("leaves what an unfinished replay has sent, unless all goes", async () => {
    const dataDir = await filled();
    const collector = await startFakeCollector({ dataDir });
    try {
      collector.takeOddly("slow");
      const replayed = await collector.letters.replay(
        { table: "t", ids: null, code: null, beforeMs: null },
        new AbortController().signal,
      );
      assert.ok(replayed.ok && replayed.value.left === 4);
      const some = await dead(dataDir, "purge", "t", "--yes", "--code", "27");
      assert.equal(some.stdout, "0 letters deleted\n");
      assert.match(some.stderr, /2 letters of an unfinished replay stay/);
      assert.equal((await idsOf(dataDir)).length, 4);
      const all = await dead(dataDir, "purge", "t", "--yes");
      assert.equal(all.stdout, "4 letters deleted\n");
      assert.deepEqual(namesIn(dataDir), ["events.ndjson"]);
    } finally {
      await collector.close();
    }
  });
});

describe("replay", () => {
  test("says what became of the rows", async () => {
    const dataDir = await filled();
    const collector = await startFakeCollector({ dataDir });
    collector.clickhouse.dead = (row) => row.includes("184467");
    try {
      const { code, stdout, stderr } = await dead(dataDir, "replay", "t", "--url", collector.url);
      assert.equal(code, 1, stderr);
      assert.equal(
        stdout,
        "3 stored\n1 dead again\n  1 × code 26: still bad\n0 could not be sent\n",
      );
      assert.deepEqual(collector.clickhouse.stored, ROWS.slice(0, 3));
      assert.equal((await idsOf(dataDir, "events")).length, 1);
      const rest = await dead(dataDir, "replay", "events", "--url", collector.url);
      assert.deepEqual([rest.code, rest.stderr], [0, ""]);
      collector.clickhouse.dead = () => false;
      const code27 = await dead(dataDir, "replay", "--code", "27", "--url", collector.url);
      assert.equal(code27.stdout, "no dead letters to replay\n");
      const again = await dead(dataDir, "replay", "--code", "26", "--url", collector.url);
      assert.match(again.stdout, /^1 stored\n/);
    } finally {
      await collector.close();
    }
  });

  testOnce(
    "goes on while the collector says that it helps, and with what is new no more",
    async () => {
      const dataDir = await filled();
      const collector = await startFakeCollector({ dataDir });
      collector.clickhouse.dead = (row) => row.includes('"eventType"');
      try {
        // The letter of `events` is dead again by the first try, and is not sent with the second.
        collector.takeOddly("usual", "slow");
        const { code, stdout, stderr } = await dead(dataDir, "replay", "--url", collector.url);
        assert.equal(code, 1, stderr);
        assert.equal(
          stdout,
          "4 stored\n1 dead again\n  1 × code 26: still bad\n0 could not be sent\n",
        );
        assert.match(stderr, /^0 of 5 stored, 1 dead again \(waiting: .*has not taken them yet/);
        const replays = collector.asked.filter((asked) => asked === "POST /api/dead/replay");
        assert.equal(replays.length, 2);
      } finally {
        await collector.close();
      }
    },
  );

  testOnce(
    "busy: it waits as it was asked; for longer than the timeout: everything stays",
    async () => {
      const dataDir = await filled();
      const collector = await startFakeCollector({ dataDir });
      try {
        const args = ["replay", "--url", collector.url, "--timeout", "1s"];
        collector.misbehave({ status: 503, retryAfter: 30, error: "the collector is paused" });
        const late = await dead(dataDir, ...args);
        assert.deepEqual([late.code, late.stdout], [
          1,
          "0 stored\n0 dead again\n5 could not be sent\n",
        ]);
        assert.match(late.stderr, /answers 503: the collector is paused\n$/);
        collector.misbehave({ status: 409, error: "a replay or a purge is under way" });
        const other = await dead(dataDir, ...args);
        assert.equal(other.code, 1);
        assert.match(other.stderr, /409: a replay or a purge is under way/);
        assert.equal(collector.chunks.length, 0);
        collector.misbehave({ status: 429, retryAfter: 0 });
        assert.equal((await dead(dataDir, ...args)).code, 0);
      } finally {
        await collector.close();
      }
    },
  );

  for (const odd of ["cut before", "cut after"] as const) {
    test(`the answer is lost (${odd}): the next replay stores none twice`, async () => {
      const dataDir = await filled();
      const collector = await startFakeCollector({ dataDir });
      try {
        collector.misbehave(odd);
        const lost = await dead(dataDir, "replay", "--url", collector.url);
        assert.equal(lost.code, 1);
        assert.match(lost.stdout, /^0 stored\n0 dead again\n5 could not be sent\n$/);
        assert.match(lost.stderr, /; replay again\n$/);
        assert.equal((await dead(dataDir, "replay", "--url", collector.url)).code, 0);
        assert.deepEqual(collector.clickhouse.stored, ['{"eventType":"a"}', ...ROWS]);
      } finally {
        await collector.close();
      }
    });
  }

  for (const signal of ["SIGKILL", "SIGINT"] as const) {
    test(`${signal} while the collector has the rows: the next one stores none twice`, async () => {
      const dataDir = await filled();
      const collector = await startFakeCollector({ dataDir });
      try {
        collector.takeOddly("hold");
        const child = startReplay(dataDir, collector.url);
        await eventually(() => assert.equal(collector.chunks.length, 1), { withinMs: 10_000 });
        process.kill(child.pid, signal);
        await child.exited;
        assert.equal((await idsOf(dataDir, "events")).length, 1);
        collector.release();
        await eventually(async () => {
          const again = await dead(dataDir, "replay", "--url", collector.url);
          assert.equal(again.code, 0, again.stderr);
        }, { withinMs: 10_000 });
        assert.deepEqual(collector.clickhouse.stored, ['{"eventType":"a"}', ...ROWS]);
        assert.deepEqual(namesIn(dataDir), []);
      } finally {
        await collector.close();
      }
    });
  }

  testOnce("two at once: one works, the other says so", async () => {
    const dataDir = await filled();
    const collector = await startFakeCollector({ dataDir });
    try {
      collector.takeOddly("hold");
      const child = startReplay(dataDir, collector.url);
      await eventually(() => assert.equal(collector.chunks.length, 1), { withinMs: 10_000 });
      for (const verb of [["replay"], ["purge", "--all", "--yes"]]) {
        const other = await dead(dataDir, ...verb, "--url", collector.url);
        assert.equal(other.code, 1);
        assert.match(other.stderr, /409: a replay or a purge is under way/);
      }
      const readable = await dead(dataDir, "ls", "--url", collector.url);
      assert.equal(readable.code, 0);
      collector.release();
      await child.exited;
      assert.equal(collector.clickhouse.stored.length, 5);
    } finally {
      await collector.close();
    }
  });

  testOnce("no collector: said, and everything stays", async () => {
    const dataDir = await filled();
    const url = `http://127.0.0.1:${await freePort()}`;
    for (const args of [["--url", url], ["--listen", url.replace("http://", "")]]) {
      const { code, stdout, stderr } = await dead(dataDir, "replay", ...args);
      assert.deepEqual([code, stdout], [1, ""]);
      assert.match(
        stderr,
        /nothing listens there; a replay needs the running collector of \S+\/data\n$/,
      );
    }
    assert.equal((await idsOf(dataDir)).length + (await idsOf(dataDir, "events")).length, 5);
  });

  describe("with TLS and a token", () => {
    const dir = tempDir("tls");
    const [key, cert] = [join(dir, "key.pem"), join(dir, "cert.pem")];
    before(() => {
      execFileSync("openssl", [
        ..."req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2".split(" "),
        ...["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        ...["-keyout", key, "-out", cert],
      ], { stdio: "ignore" });
    });
    after(() => removeDir(dir));
    const token = "a-token-of-some-length";

    test("by flags, and by the settings of the collector", async () => {
      const tls = { key: readFileSync(key, "utf8"), cert: readFileSync(cert, "utf8") };
      const dataDir = await filled();
      const collector = await startFakeCollector({ dataDir, tls, token });
      try {
        const tokenFile = join(dir, "token");
        writeFileSync(tokenFile, `${token}\n`);
        const strange = await dead(dataDir, "replay", "--url", collector.url);
        assert.equal(strange.code, 1);
        assert.match(strange.stderr, /self.signed certificate/);
        const nobody = await dead(dataDir, "replay", "--url", collector.url, "--ca-file", cert);
        assert.equal(nobody.code, 1);
        assert.match(nobody.stderr, /401: a bearer token is needed/);
        assert.equal((await idsOf(dataDir)).length, 4);
        const trusted = await dead(
          ...[dataDir, "replay", "t", "--url", collector.url, "--ca-file", cert],
          ...["--token-file", tokenFile],
        );
        assert.equal(trusted.code, 0, trusted.stderr);
        const installed = await runShishi(["dead", "replay", "--url", collector.url], {
          env: { SHISHI_DATA_DIR: dataDir, SSL_CERT_FILE: cert },
        });
        assert.match(installed.stderr, /401: a bearer token is needed/);
        const same = await runShishi(["dead", "replay"], {
          env: {
            SHISHI_DATA_DIR: dataDir,
            SHISHI_LISTEN: collector.url.replace("https://", ""),
            SHISHI_TLS_CERT: cert,
            SHISHI_TLS_KEY: key,
            SHISHI_AUTH_TOKENS: token,
          },
        });
        assert.equal(same.code, 0, same.stderr);
        assert.equal(collector.clickhouse.stored.length, 5);
        const output = [strange, nobody, trusted, same].map((run) => run.stdout + run.stderr)
          .join();
        assert.ok(!output.includes(token));
      } finally {
        await collector.close();
      }
    });
  });
});

describe("what the running collector says", () => {
  testOnce(
    "ls, show and purge are the same as without one, and only its own folder is meant",
    async () => {
      const dataDir = await filled();
      const collector = await startFakeCollector({ dataDir });
      const listen = ["--listen", collector.url.replace("http://", "")];
      try {
        for (
          const args of [
            ["ls"],
            ["ls", "t", "--json"],
            ["show"],
            ["show", "--json", "--code", "27", "--limit", "1"],
            ["show", "nowhere"],
          ]
        ) {
          const asked = collector.asked.length;
          const there = await dead(dataDir, ...args, ...listen);
          assert.ok(collector.asked.length > asked, args.join(" "));
          assert.deepEqual(there, await dead(dataDir, ...args), args.join(" "));
        }
        const whole = await dead(dataDir, "show", "t", "--json", "--url", collector.url);
        assert.equal(whole.stdout, readFileSync(join(dataDir, "dead/t.ndjson"), "utf8"));

        // Another folder's letters are not this collector's, whichever listens here.
        const other = await filled();
        writeFileSync(join(other, "dead/events.ndjson"), "");
        const read = await dead(other, "ls", ...listen);
        assert.deepEqual([read.code, read.stdout.includes("events")], [0, false]);
        const replayed = await dead(other, "replay", ...listen);
        assert.equal(replayed.code, 1);
        assert.match(
          replayed.stderr,
          /lie in another folder; a replay needs the running collector/,
        );
        assert.equal(
          (await dead(other, "purge", "t", "--yes", ...listen)).stdout,
          "4 letters deleted\n",
        );
        assert.equal((await idsOf(dataDir)).length, 4);

        const asks = await dead(dataDir, "purge", "t", ...listen);
        assert.equal(asks.code, 2);
        assert.match(asks.stderr, /4 dead letters of t would be deleted; expected --yes/);
        const some = await dead(dataDir, "purge", "t", "--yes", "--code", "27", ...listen);
        assert.equal(some.stdout, "2 letters deleted\n");
        writeFileSync(join(dataDir, "dead/events.ndjson"), "noise\n", { flag: "a" });
        const all = await dead(dataDir, "purge", "--all", "--yes", ...listen);
        assert.equal(all.stdout, "3 letters and 1 lines that cannot be read deleted\n");
        assert.deepEqual(namesIn(dataDir), []);
      } finally {
        await collector.close();
      }
    },
  );

  test("a folder that a collector has, which does not listen here, is not purged", async () => {
    const dataDir = await filled();
    const lock = await takeLock(dataDir, { clock: systemClock });
    assert.ok(!("problem" in lock));
    const { code, stderr } = await dead(dataDir, "purge", "t", "--yes");
    assert.equal(code, 1);
    assert.match(stderr, /is in use by another collector/);
    await lock.release();
    assert.equal((await idsOf(dataDir)).length, 4);
  });
});

describeOnce("unusable", () => {
  const cases: [string[], RegExp][] = [
    [[], /expected ls, show, replay or purge, got nothing/],
    [["list"], /expected ls, show, replay or purge, got "list"/],
    [["toString"], /got "toString"/],
    [["show", "--limit", "0"], /--limit: expected a whole number from 1/],
    [["show", "a", "b"], /unexpected argument "b"/],
    [["ls", "--code", "1"], /--code: unknown flag/],
    [["purge"], /expected the name of a table or --all, got neither/],
    [["purge", "t", "--all"], /expected the name of a table or --all, got both/],
    [["replay", "--url", "localhost:8080"], /--url: expected http\(s\):\/\/host:port/],
    [["replay", "--url", "http://h/events"], /--url: expected http\(s\):\/\/host:port/],
    [
      ["replay", "--ca-file", "/nowhere"],
      /--ca-file: expected a PEM file with certificates, got "\/nowhere"/,
    ],
  ];
  for (const [args, wanted] of cases) {
    test(`dead ${args.join(" ")}`, async () => {
      const dataDir = folder();
      mkdirSync(join(dataDir, "dead"), { recursive: true });
      const { code, stdout, stderr } = await dead(dataDir, ...args);
      assert.deepEqual([code, stdout], [2, ""], stderr);
      assert.match(stderr, wanted);
    });
  }

  testOnce("letters that cannot be read are a problem, not a stack", async () => {
    const dataDir = folder();
    mkdirSync(join(dataDir, "dead"), { recursive: true });
    symlinkSync("t.ndjson", join(dataDir, "dead/t.ndjson"));
    const { code, stdout, stderr } = await dead(dataDir, "ls");
    assert.deepEqual([code, stdout], [1, ""]);
    assert.match(stderr, /^shishi: dead letters: ELOOP: .+\n$/);
  });

  testOnce("a folder that cannot be looked at is not one without letters", async () => {
    const dataDir = join(tempFile("data", ""), "below");
    folders.push(dirname(dirname(dataDir)));
    for (const verb of ["ls", "show", "replay", "purge"]) {
      const all = verb === "purge" ? ["--all", "--yes"] : [];
      const { code, stdout, stderr } = await dead(dataDir, verb, ...all);
      assert.deepEqual([code, stdout], [1, ""], `${verb}: ${stderr}`);
      assert.match(stderr, /^shishi: dead letters: ENOTDIR: .+\n$/, verb);
    }
  });
});

const MAIN = fileURLToPath(new URL("../../src/main.ts", import.meta.url));

/** A replay that a test ends by itself. */
function startReplay(dataDir: string, url: string) {
  const before = process.versions.deno === undefined ? [] : ["run", "-A", "-q"];
  const args = [...before, MAIN, "dead", "replay", "--data-dir", dataDir, "--url", url];
  const child = spawn(process.execPath, args, { stdio: "ignore" });
  const exited = new Promise<void>((resolve) => child.once("close", () => resolve()));
  return { pid: child.pid!, exited };
}
