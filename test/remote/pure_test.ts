/**
 * The decisions of remote control, without a server.
 * Runs once: functions of values alone: nothing of a runtime is asked.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import type { Status } from "../../src/contracts.ts";
import { decide } from "../../src/remote/remote.ts";
import { parseServer } from "../../src/kernel/nats.ts";
import {
  COMMANDS,
  prefixProblem,
  readAnswer,
  subjectFor,
  subjectsOf,
  writeAnswer,
} from "../../src/remote/protocol.ts";
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
          assert.ok(where.ok);
          return mine.get(where.value.subject);
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
      assert.ok(!where.ok);
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
    const read = readAnswer(writeAnswer("stop", status, "draining", null), "this process");
    assert.ok(read.ok);
    const answer = read.value;
    assert.equal(`${answer.name} ${answer.instance}`, "eu.a this process");
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
      !read(`{"group":"\\u001b[2J","id":"a","command":"stop","ok":true,"state":"x"}`).ok,
    );
    const answer = read(
      `{"group":"eu","id":"a","command":"stop","ok":false,"state":"\\u001b[2J","error":"a\\nb\\u001b"}`,
    );
    assert.ok(answer.ok);
    assert.equal(answer.value.error, "a b ");
    assert.equal(answer.value.state, " [2J");
  });
});

describe("servers", () => {
  test("user and password are taken out of what may be logged", () => {
    assert.deepEqual(parseServer("wss://me:p%40ss@nats.example/path"), {
      ok: true,
      value: {
        url: "wss://nats.example/path",
        name: "nats.example:443",
        user: "me",
        password: "p@ss",
      },
    });
  });

  for (
    const text of ["localhost:9222", "amqp://localhost:4222", "", "ws://", "http://u:secret@h"]
  ) {
    test(`${JSON.stringify(text)} is refused without showing a password`, () => {
      const address = parseServer(text);
      assert.ok(!address.ok);
      assert.match(address.problem, /^nats-url: expected nats:\/\//);
      assert.doesNotMatch(address.problem, /secret/);
    });
  }
});
