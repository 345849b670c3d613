/** What `shishi check` decides by itself: order and time limits, open files, certificates, its lines. */

import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, test } from "node:test";
import { jsonOf, lineOf, openFiles, runLooks, validity } from "../../src/commands/check.ts";
import { about, type Finding } from "../../src/kernel/finding.ts";
import { bytesBelow } from "../../src/spool/inspect_data_dir.ts";
import { ManualClock, settle } from "../kit/manual_clock.ts";
import { removeDir, tempDir } from "../kit/temp.ts";

const day = (text: string) => Date.parse(`${text}T00:00:00Z`);
const fine = (what: string) => [about(what).ok("fine")];

describe("check", () => {
  test("what is looked at is told in order; what hangs or breaks is wrong, and holds up no other", async () => {
    const clock = new ManualClock();
    const told: string[] = [];
    const done = runLooks(
      [
        { what: "a", look: () => Promise.reject(new Error("a bug")) },
        { what: "b", look: () => new Promise(() => {}) },
        { what: "c", look: () => Promise.resolve(fine("c")) },
        {
          what: "d",
          look: () => {
            throw new Error("another");
          },
        },
      ],
      20_000,
      clock,
      (findings) => told.push(...findings.map((each) => lineOf(each, false))),
    );
    await settle();
    assert.deepEqual(told, ["✗ a: Error: a bug"]);
    await clock.advance(20_000);
    await done;
    assert.deepEqual(told.slice(1), [
      "✗ b: no answer within 20 s",
      "✓ c: fine",
      "✗ d: Error: another",
    ]);
    assert.equal(clock.pending, 0);
  });

  test("a bounded number at once", async () => {
    let now = 0;
    let most = 0;
    const names = Array.from({ length: 100 }, (_, n) => `server ${n}`);
    const told: readonly Finding[][] = [];
    await runLooks(
      names.map((what) => ({
        what,
        look: async () => {
          most = Math.max(most, ++now);
          await settle();
          now--;
          return fine(what);
        },
      })),
      1_000,
      new ManualClock(),
      (findings) => void (told as Finding[][]).push([...findings]),
    );
    assert.deepEqual(told.flat().map(({ what }) => what), names);
    assert.ok(most > 1 && most <= 16, `${most} at once`);
  });

  test("open files: few are warned of, where the system tells", () => {
    const limits = (soft: string) =>
      `Limit                     Soft Limit           Hard Limit           Units     \n` +
      `Max processes             127                  127                  processes \n` +
      `Max open files            ${soft.padEnd(20)} 4096                 files     \n`;
    assert.deepEqual(openFiles(limits("1024")).map(({ state }) => state), ["warning"]);
    assert.match(openFiles(limits("1024"))[0]!.todo!, /LimitNOFILE=65536/);
    assert.deepEqual(openFiles(limits("4096")).map(({ state }) => state), ["ok"]);
    assert.deepEqual(openFiles(limits("unlimited")).map(({ state }) => state), ["ok"]);
    assert.deepEqual(openFiles(""), []);
  });

  const cases: [now: string, state: string, text: string][] = [
    ["2025-12-31", "wrong", "valid only from 2026-01-01"],
    ["2026-06-01", "ok", "valid until 2027-01-01"],
    ["2026-12-20", "warning", "expires on 2027-01-01"],
    ["2027-01-01", "wrong", "expired on 2027-01-01"],
  ];
  for (const [now, state, text] of cases) {
    test(`a certificate of 2026, looked at on ${now}: ${text}`, () => {
      const [from, to] = ["Jan  1 00:00:00 2026 GMT", "Jan  1 00:00:00 2027 GMT"];
      const found = validity("c.pem", from, to, day(now));
      assert.deepEqual([found.state, found.text], [state, text]);
    });
  }

  test("what lies in the spools, those of workers too, takes no more room", async () => {
    const dataDir = tempDir("check");
    const MIB = 2 ** 20;
    const put = (path: string) => {
      mkdirSync(dirname(join(dataDir, path)), { recursive: true });
      writeFileSync(join(dataDir, path), new Uint8Array(MIB));
    };
    try {
      assert.equal(await bytesBelow(join(dataDir, "nowhere")), 0);
      put("spool/clicks/a");
      put("dead/clicks.ndjson");
      put("worker-1/spool/clicks/b");
      put("worker-12/spool/views/c");
      for (const other of ["quarantine/d", "worker-1/lock", "worker-x/spool/clicks/e"]) put(other);
      // The folders themselves are some kilobytes.
      assert.equal(Math.floor(await bytesBelow(dataDir) / MIB), 4);
    } finally {
      removeDir(dataDir);
    }
  });

  test("a line is one line, whatever a server says", () => {
    const found = about("nats h:1").wrong("says\n✓ all is well\x1b[2J", "stop\rit");
    assert.equal(lineOf(found, false), "✗ nats h:1: says ✓ all is well [2J → stop it");
    assert.ok(lineOf(found, true).startsWith("\x1b[31m✗\x1b[39m nats"));
    assert.deepEqual(JSON.parse(jsonOf(found)), {
      check: "nats h:1",
      state: "wrong",
      text: "says\n✓ all is well\x1b[2J",
      todo: "stop\rit",
    });
  });
});
