/**
 * The decisions and the texts of the command line's half of remote control, without a server.
 * Runs once: functions of values alone: nothing of a runtime is asked.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import type { Command } from "../../src/contracts.ts";
import { progressLine, shortTime, statusTable } from "../../src/fleet/screen.ts";
import { Tally } from "../../src/fleet/talk.ts";
import { type Answer, readAnswer, writeAnswer } from "../../src/remote/protocol.ts";
import { fakeControl } from "../remote/kit.ts";

describe("tally", () => {
  const answer = (id: string, state: string, ok = true, of: Command = "stop"): Answer => {
    const read = readAnswer(
      writeAnswer(of, fakeControl("eu", id).status(), state, ok ? null : "no"),
    );
    assert.ok(read.ok);
    return read.value;
  };

  test("two collectors of one name are both waited for", () => {
    const tally = new Tally("stop");
    tally.add(answer("a", "draining"));
    tally.add(answer("a", "draining"));
    tally.add(answer("a", "stopped"));
    assert.equal(tally.open, 1);
    assert.deepEqual(tally.unfinished.map((late) => late.state), ["draining"]);
    tally.add(answer("a", "stopped"));
    assert.equal(tally.open, 0);
    assert.deepEqual(tally.answers.map((each) => each.state), ["stopped", "stopped"]);
  });

  test("a collector that refuses owes nothing", () => {
    const tally = new Tally("flush");
    tally.add(answer("a", "running", false, "flush"));
    assert.equal(tally.open, 0);
    assert.equal(tally.answers.length, 1);
  });

  test("in any order of any fleet, open is what began and did not end", () => {
    const ids = fc.array(fc.constantFrom("a", "b", "c"), { minLength: 1, maxLength: 20 });
    fc.assert(fc.property(ids, fc.nat(20), (fleet, ended) => {
      const tally = new Tally("stop");
      for (const id of fleet) tally.add(answer(id, "draining"));
      for (const id of fleet.slice(0, ended)) tally.add(answer(id, "stopped"));
      assert.equal(tally.open, Math.max(0, fleet.length - ended));
      assert.equal(tally.answers.length, fleet.length);
    }));
  });
});

describe("text", () => {
  const read = (id: string): Answer => {
    const status = fakeControl("eu", id).status();
    const answer = readAnswer(writeAnswer("status", status, "running", null));
    assert.ok(answer.ok);
    return answer.value;
  };

  test("the table is aligned and without colour where none is wanted", () => {
    assert.deepEqual(statusTable([read("a"), read("a-long-one")], false), [
      "GROUP  ID          STATE    HELD  OLDEST  STORED  DEAD  LOST  VERSION  UPTIME",
      "eu     a           running     2      3s       4     1     0  1.2.3     1h01m",
      "eu     a-long-one  running     2      3s       4     1     0  1.2.3     1h01m",
    ]);
    assert.equal(
      progressLine(read("a"), false),
      "eu.a  running   held 2  stored 4  dead 1  lost 0",
    );
  });

  test("colour changes nothing but colour", () => {
    const colored = statusTable([read("a")], true);
    // deno-lint-ignore no-control-regex
    const plain = colored.map((line) => line.replace(/\u001b\[\d+m/g, ""));
    assert.notDeepEqual(colored, plain);
    assert.deepEqual(plain.map((line) => line.trimEnd()), statusTable([read("a")], false));
  });

  for (
    const [seconds, text] of [[0, "0s"], [59.4, "59s"], [60, "1m00s"], [3599, "59m59s"], [
      86_399,
      "23h59m",
    ], [90_000, "1d1h"]] as const
  ) {
    test(`${seconds} seconds are ${text}`, () => assert.equal(shortTime(seconds), text));
  }
});
