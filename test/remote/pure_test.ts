/** The decisions of remote control, without a server. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import type { Command, Status } from "../../src/contracts.ts";
import { type Answer, readAnswer, writeAnswer } from "../../src/remote/answer.ts";
import { createTally } from "../../src/remote/caller.ts";
import { decide } from "../../src/remote/command.ts";
import { backoffMs } from "../../src/remote/forever.ts";
import { createLimit } from "../../src/remote/limit.ts";
import { parseServer } from "../../src/remote/servers.ts";
import { COMMANDS, prefixProblem, subjectFor, subjectsOf } from "../../src/remote/subjects.ts";
import { progressLine, shortTime, statusTable } from "../../src/remote/table.ts";
import { fakeControl } from "./kit.ts";

const name = fc.stringMatching(/^[A-Za-z0-9_-]{1,12}$/);
const command = fc.constantFrom(...COMMANDS);

describe("subjects", () => {
  test("a collector has fifteen, three for each command", () => {
    const subjects = subjectsOf("ops.shishi", "eu", "edge-1");
    assert.equal(subjects.size, 15);
    assert.equal(subjects.get("ops.shishi.stop"), "stop");
    assert.equal(subjects.get("ops.shishi.flush.eu"), "flush");
    assert.equal(subjects.get("ops.shishi.status.eu.edge-1"), "status");
  });

  test("a target reaches exactly those that it names", () => {
    fc.assert(
      fc.property(command, name, name, name, name, (sent, group, id, toGroup, toId) => {
        const mine = subjectsOf("p", group, id);
        const reached = (target: string) => {
          const where = subjectFor("p", sent, target);
          assert.ok("subject" in where);
          return mine.get(where.subject);
        };
        assert.equal(reached("all"), sent);
        assert.equal(reached(`${group}.${id}`), sent);
        assert.equal(
          reached(`${toGroup}.${toId}`),
          toGroup === group && toId === id ? sent : undefined,
        );
        if (toGroup !== "all") {
          assert.equal(reached(toGroup), toGroup === group ? sent : undefined);
        }
      }),
    );
  });

  for (const target of ["", ".", "eu.", ".a", "eu.a.b", "eu.*", ">", "eu a", "eu\n", "é"]) {
    test(`the target ${JSON.stringify(target)} is refused by name`, () => {
      const where = subjectFor("shishi", "stop", target);
      assert.ok("problem" in where);
      assert.match(where.problem, /^target: expected all, GROUP or GROUP\.ID/);
      assert.ok(where.problem.includes(JSON.stringify(target)));
    });
  }

  for (const prefix of ["", "a..b", "a.", ".a", "a b", "a.*", ">", "$SYS", "a\u0000"]) {
    test(`the prefix ${JSON.stringify(prefix)} is refused`, () => {
      assert.match(prefixProblem(prefix) ?? "", /^nats-subject: expected/);
    });
  }

  test("a prefix may have dots", () => assert.equal(prefixProblem("ops.eu-1.shishi"), null));
});

describe("command", () => {
  const subjects = subjectsOf("shishi", "eu", "a");
  const message = (subject: string, reply: string, payload = new Uint8Array()) => ({
    subject,
    reply,
    payload,
    header: () => "",
  });

  test("the payload changes nothing", () => {
    fc.assert(fc.property(fc.uint8Array(), (payload) => {
      const decision = decide(message("shishi.stop", "r", payload), subjects, "shishi", null, 0);
      assert.ok(decision.kind === "obey");
      assert.equal(`${decision.command} ${decision.replyTo}`, "stop r");
    }));
  });

  test("a subject that is none of the collector's is refused", () => {
    const decision = decide(message("shishi.explode", "r"), subjects, "shishi", null, 0);
    assert.equal(decision.kind, "refuse");
  });

  for (const reply of ["", "shishi", "shishi.stop", "shishi.stop.eu"]) {
    test(`no answer goes to ${JSON.stringify(reply)}`, () => {
      const decision = decide(message("shishi.status", reply), subjects, "shishi", null, 0);
      assert.equal(`${decision.kind} ${decision.replyTo}`, "obey null");
    });
  }
});

describe("answers", () => {
  const status = fakeControl("eu", "a").status();
  const read = (text: string) => readAnswer(new TextEncoder().encode(text));

  test("what is written can be read", () => {
    const answer = readAnswer(writeAnswer("stop", status, "draining", null));
    assert.ok(!("problem" in answer));
    assert.equal(`${answer.group}.${answer.id} ${answer.command} ${answer.ok}`, "eu.a stop true");
    assert.equal(answer.state, "draining");
    assert.deepEqual(answer.ledger, status.ledger);
  });

  test("the answer to status is the whole status with command and ok", () => {
    const answer = JSON.parse(
      new TextDecoder().decode(writeAnswer("status", status, "running", null)),
    );
    assert.deepEqual(answer, { ...status, command: "status", ok: true });
  });

  test("other answers hold what the contract lists and no more", () => {
    const answer = JSON.parse(
      new TextDecoder().decode(writeAnswer("pause", status, "paused", null)),
    );
    assert.deepEqual(Object.keys(answer), ["group", "id", "command", "ok", "state", "ledger"]);
  });

  test("a status with too many tables goes without them", () => {
    const table = status.tables["analytics_events"];
    assert.ok(table !== undefined);
    const tables = Object.fromEntries(
      Array.from({ length: 10_000 }, (_, at) => [`a_table_with_a_long_name_${at}`, table]),
    );
    const many: Status = { ...status, tables };
    const bytes = writeAnswer("status", many, "running", null);
    assert.ok(bytes.length < 1024 * 1024);
    assert.equal(JSON.parse(new TextDecoder().decode(bytes)).tables_left_out, true);
  });

  test("anything at all can be read without a throw", () => {
    fc.assert(fc.property(fc.oneof(fc.json(), fc.string()), (text) => void read(text)));
    fc.assert(fc.property(fc.uint8Array(), (bytes) => void readAnswer(bytes)));
  });

  test("a name that could move the cursor is no answer, an error that could is cleaned", () => {
    assert.ok(
      "problem" in read(`{"group":"\\u001b[2J","id":"a","command":"stop","ok":true,"state":"x"}`),
    );
    const answer = read(
      `{"group":"eu","id":"a","command":"stop","ok":false,"state":"\\u001b[2J","error":"a\\nb\\u001b"}`,
    );
    assert.ok(!("problem" in answer));
    assert.equal(answer.error, "a b ");
    assert.equal(answer.state, " [2J");
  });
});

describe("servers", () => {
  test("user and password are taken out of what may be logged", () => {
    assert.deepEqual(parseServer("wss://me:p%40ss@nats.example/path"), {
      url: "wss://nats.example/path",
      name: "nats.example:443",
      user: "me",
      password: "p@ss",
    });
  });

  for (
    const text of ["localhost:9222", "nats://localhost:4222", "", "ws://", "http://u:secret@h"]
  ) {
    test(`${JSON.stringify(text)} is refused without showing a password`, () => {
      const address = parseServer(text);
      assert.ok("problem" in address);
      assert.match(address.problem, /^nats-url: expected ws:\/\//);
      assert.doesNotMatch(address.problem, /secret/);
    });
  }
});

describe("bounds", () => {
  test("a limit passes its rate and no more, whatever the rhythm", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 50 }), fc.array(fc.nat(200)), (perSecond, gaps) => {
        const limit = createLimit(perSecond);
        let nowMs = 0;
        let passed = 0;
        for (const gap of gaps) {
          nowMs += gap;
          if (limit.admit(nowMs)) passed++;
        }
        assert.ok(passed <= perSecond + nowMs * perSecond / 1000 + 1e-6);
        assert.ok(gaps.length === 0 || passed > 0);
      }),
    );
  });

  test("no wait before the next attempt is longer than 5 s, and the first is short", () => {
    fc.assert(
      fc.property(fc.nat(10_000), fc.integer({ min: 1, max: 9 }), (failures, servers) => {
        const ms = backoffMs(failures, servers, 0.999);
        assert.ok(ms > 0 && ms <= 5_000);
      }),
    );
    assert.ok(backoffMs(1, 1, 0.999) <= 250);
    assert.ok(backoffMs(0, 1, 0.999) <= 250);
  });
});

describe("tally", () => {
  const answer = (id: string, state: string, ok = true, of: Command = "stop"): Answer => {
    const read = readAnswer(
      writeAnswer(of, fakeControl("eu", id).status(), state, ok ? null : "no"),
    );
    assert.ok(!("problem" in read));
    return read;
  };

  test("two collectors of one name are both waited for", () => {
    const tally = createTally("stop");
    tally.add(answer("a", "draining"));
    tally.add(answer("a", "draining"));
    tally.add(answer("a", "stopped"));
    assert.equal(tally.open(), 1);
    assert.deepEqual(tally.unfinished().map((late) => late.state), ["draining"]);
    tally.add(answer("a", "stopped"));
    assert.equal(tally.open(), 0);
    assert.deepEqual(tally.answers().map((each) => each.state), ["stopped", "stopped"]);
  });

  test("a collector that refuses owes nothing", () => {
    const tally = createTally("flush");
    tally.add(answer("a", "running", false, "flush"));
    assert.equal(tally.open(), 0);
    assert.equal(tally.answers().length, 1);
  });

  test("in any order of any fleet, open is what began and did not end", () => {
    const ids = fc.array(fc.constantFrom("a", "b", "c"), { minLength: 1, maxLength: 20 });
    fc.assert(fc.property(ids, fc.nat(20), (fleet, ended) => {
      const tally = createTally("stop");
      for (const id of fleet) tally.add(answer(id, "draining"));
      for (const id of fleet.slice(0, ended)) tally.add(answer(id, "stopped"));
      assert.equal(tally.open(), Math.max(0, fleet.length - ended));
      assert.equal(tally.answers().length, fleet.length);
    }));
  });
});

describe("text", () => {
  const read = (id: string): Answer => {
    const status = fakeControl("eu", id).status();
    const answer = readAnswer(writeAnswer("status", status, "running", null));
    assert.ok(!("problem" in answer));
    return answer;
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
