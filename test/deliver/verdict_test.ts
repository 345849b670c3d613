/**
 * Every answer that an INSERT can meet. Texts as the two real servers (26.7 and 18.16) say them, where
 * they can be brought to; codes 53, 70, 202, 349, 452, 999 and those of proxies are after their form.
 * Runs once: functions of values alone: nothing of a runtime is asked.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Verdict } from "../../src/contracts.ts";
import type { Answer, Exchanged } from "../../src/kernel/http.ts";
import { done, failed } from "../../src/kernel/result.ts";
import { mayBeStored, NO_CLICKHOUSE, verdictOf } from "../../src/deliver/verdict.ts";

const NOW_MS = Date.parse("2026-01-01T00:00:00Z");

function answer(status: number, body: string, headers: Record<string, string> = {}): Answer {
  return { status, headers, body: new TextEncoder().encode(body), cut: false };
}
/** 26.7: header and text. */
function modern(status: number, code: number, text: string, tail = ""): Answer {
  return answer(
    status,
    `Code: ${code}. DB::Exception: ${text}${tail} (NAME) (version 26.7.2.1)\n`,
    {
      "x-clickhouse-exception-code": String(code),
    },
  );
}
/** Of an answer of ClickHouse itself. */
const OWN = { "x-clickhouse-summary": "{}", "x-clickhouse-query-id": "q" };
const PARSING = "\n: While executing ParallelParsingBlockInputFormat.";
/** 18.16: text only. */
function old(status: number, code: number, text: string): Answer {
  return answer(
    status,
    `Code: ${code}, e.displayText() = DB::Exception: ${text}, e.what() = DB::Exception\n`,
  );
}

type Expected = Partial<Record<string, unknown>> & { kind: Verdict["kind"] };
const row = (code: number, named: number | null): Expected => ({ kind: "row", code, row: named });
const table = (code: number): Expected => ({ kind: "table", code });
const transient = (code: number, retryAfterMs?: number): Expected => ({
  kind: "transient",
  code,
  retryAfterMs,
});
const split = (code: number): Expected => ({ kind: "split", code });
const unknown = (code: number, setting: string): Expected => ({
  kind: "unknown-setting",
  code,
  setting,
});

const K = "(while reading the value of key a)";
// deno-fmt-ignore: a table is read line by line.
const cases: [string, Answer | Exchanged, Expected][] = [
  ["stored", answer(200, "", OWN), { kind: "stored" }],
  ["stored, 18.16", answer(200, "", { "x-clickhouse-server-display-name": "vm" }), { kind: "stored" }],
  ["stored, header 0", answer(200, "", { ...OWN, "x-clickhouse-exception-code": "0" }), { kind: "stored" }],
  // what is no ClickHouse
  ["an empty 200", answer(200, ""), { kind: "transient", code: 0, message: NO_CLICKHOUSE }],
  ["an empty 200 of a balancer", answer(200, "", { server: "nginx", "content-length": "0" }), { kind: "transient", code: 0, message: NO_CLICKHOUSE }],
  ["a 200 that gives back what it was sent", answer(200, "", { "x-clickhouse-user": "default" }), { kind: "transient", code: 0, message: NO_CLICKHOUSE }],
  ["an empty 204", answer(204, "", OWN), transient(0)],
  // rows, 26.7
  ["26.7 input", modern(400, 27, `Cannot parse input: expected '"' before: 'bad","b":"x"}': ${K}: (at row 2)`, PARSING), row(27, 2)],
  ["26.7 unknown field", modern(400, 117, "Unknown field found while parsing JSONEachRow format: zz: (at row 1)", PARSING), row(117, 1)],
  ["26.7 repeated field", modern(400, 117, "Duplicate field found while parsing JSONEachRow format: a: (at row 10000)", PARSING), row(117, 10000)],
  ["26.7 torn row", modern(500, 33, "Unexpected end of stream while parsing JSONEachRow format: (at row 1)", PARSING), row(33, 1)],
  ["26.7 surrogate", modern(400, 25, `Cannot parse escape sequence: missing second part of surrogate pair. In JSON input formats you can disable setting input_format_json_throw_on_bad_escape_sequence to save bad escape sequences as is: ${K}: (at row 3)`, PARSING), row(25, 3)],
  ["26.7 quoted string", modern(400, 26, `Cannot parse JSON string: expected closing quote: ${K}: (at row 1)`, PARSING), row(26, 1)],
  ["26.7 number", modern(400, 72, `Unsigned type must not contain '-' symbol: ${K}: (at row 1)`, PARSING), row(72, 1)],
  ["26.7 date", modern(400, 38, `Cannot parse date: value is too short: ${K}: (at row 2)`, PARSING), row(38, 2)],
  ["26.7 time", modern(400, 41, `Cannot read DateTime: unexpected word: ${K}: (at row 2)`, PARSING), row(41, 2)],
  ["26.7 uuid", modern(400, 376, `Cannot parse uuid nope"}: ${K}: (at row 2)`, PARSING), row(376, 2)],
  ["26.7 enum", modern(500, 691, `Unknown element 'zz' for enum: ${K}: (at row 2)`, PARSING), row(691, 2)],
  ["26.7 fixed string", modern(500, 131, `Too large value for FixedString(3): ${K}: (at row 2)`, PARSING), row(131, 2)],
  ["26.7 decimal", modern(500, 69, `Too many digits (10 > 9) in decimal value: ${K}: (at row 2)`, PARSING), row(69, 2)],
  ["26.7 array", modern(500, 130, `Array does not start with '[' character: ${K}: (at row 2)`, PARSING), row(130, 2)],
  ["26.7 constraint", modern(500, 469, "Constraint `small` for table dlv.con (32378b4b-5f7f-42d8-8f86-590ec6aa070e) is violated at row 270001. Expression: (a < 100). Column values: a = 200."), row(469, 270001)],
  ["26.7 constraint, number in a value", modern(500, 469, "Constraint `c` for table d.t (id) is violated at row 5. Expression: (b != 'x'). Column values: b = ' is violated at row 1. Expression: '."), row(469, 5)],
  ["26.7 null", modern(500, 349, "Cannot convert NULL value to non-Nullable type: while converting source column"), row(349, null)],
  ["26.7 type", modern(400, 53, "Type mismatch in IN or VALUES section"), row(53, null)],
  ["26.7 conversion", modern(400, 70, "Conversion from X to Y is not supported"), row(70, null)],
  ["26.7 official build", answer(400, `Code: 27. DB::Exception: Cannot parse input: ${K}: (at row 9)\n: While executing ParallelParsingBlockInputFormat: data for INSERT was parsed from query. (CANNOT_PARSE_INPUT_ASSERTION_FAILED) (version 24.3.1.2672 (official build))\n`, { "x-clickhouse-exception-code": "27" }), row(27, 9)],
  ["26.7 unlisted code that names a row", modern(500, 9999, `Strange: ${K}: (at row 4)`, PARSING), row(9999, 4)],
  // rows, 18.16
  ["18.16 input", old(500, 27, `Cannot parse input: expected " before: bad","b":"x"}: (while read the value of key a): (at row 2)\n`), row(27, 2)],
  ["18.16 unknown field", old(500, 117, "Unknown field found while parsing JSONEachRow format: zz: (at row 1)\n"), row(117, 1)],
  ["18.16 surrogate, not named", old(400, 25, "Cannot parse escape sequence: missing second part of surrogate pair: (while read the value of key b)"), row(25, null)],
  ["18.16 decimal, not named", old(500, 69, "Too many digits in decimal value: (while read the value of key dec)"), row(69, null)],
  ["18.16 enum, a LOGICAL_ERROR", old(500, 49, "Unknown element 'zz' for type Enum8('a' = 1, 'b' = 2): (while read the value of key e)"), row(49, null)],
  ["18.16 uuid", old(500, 376, `Cannot parse uuid nope"}: (while read the value of key u): (at row 2)\n`), row(376, 2)],
  // a client that writes a row number into its data
  ["injected number, real one at the end", modern(400, 27, `Cannot parse input: expected '"' before: 'x: (at row 1)': ${K}: (at row 7)`, PARSING), row(27, 7)],
  ["injected number, none real", old(500, 49, "Unknown element 'x: (at row 1)\n, e.what() = DB::Exception' for type Enum8('a' = 1): (while read the value of key e)"), row(49, null)],
  ["injected into 26.7's enum", modern(500, 691, `Unknown element ': (at row 1)\n: While executing A. (B) (version 1)' for enum: (while reading the value of key e)`), row(691, null)],
  // tables
  ["26.7 no table", modern(404, 60, "Table dlv.nope does not exist. Maybe you meant system.one?."), table(60)],
  ["18.16 no table", old(404, 60, "Table dlv.nope doesn't exist."), table(60)],
  ["26.7 no database", modern(404, 81, "Database nodb does not exist."), table(81)],
  ["18.16 no database", old(404, 81, "Database nodb doesn't exist"), table(81)],
  ["26.7 no column", modern(500, 16, "No such column zz in table dlv.t (c20df6df-c7c1-4334-bd0a-3988f2f218b6)."), table(16)],
  ["18.16 no column", old(500, 16, "No such column zz in table t"), table(16)],
  ["26.7 no rights", modern(500, 497, "default: Not enough privileges."), table(497)],
  ["26.7 wrong password", modern(403, 516, "nobody: Authentication failed: password is incorrect, or there is no user with such name."), table(516)],
  ["26.7 password required", modern(401, 194, "default: Authentication failed\nIf you use ClickHouse Cloud, …\n."), table(194)],
  ["18.16 unknown user", old(401, 192, "Unknown user nobody"), table(192)],
  ["18.16 wrong password", old(401, 193, "Wrong password for user default"), table(193)],
  ["26.7 read only user", modern(500, 164, "default: Cannot execute query in readonly mode."), table(164)],
  ["18.16 read only user", old(500, 164, "Cannot insert into table in readonly mode"), table(164)],
  ["26.7 engine cannot write", modern(501, 48, "Method write is not supported by storage SystemOne."), table(48)],
  ["18.16 no input()", old(400, 62, "Syntax error: failed at position 242 (line 1, col 242): FORMAT JSONEachRow"), table(62)],
  ["18.16 no Map", old(404, 50, "Unknown data type family: Map"), table(50)],
  ["26.7 a view fails after the rows are in", modern(500, 153, "Division by zero: while executing 'FUNCTION intDiv(10_UInt8 :: 1, __table1.a :: 2)': while pushing to view dlv.mv."), table(153)],
  // sizes
  ["26.7 too many partitions", modern(500, 252, "Too many partitions for single INSERT block (more than 10). The limit is controlled by 'max_partitions_per_insert_block' setting."), split(252)],
  ["26.7 too many parts", modern(500, 252, "Too many parts (1 with average size of 312.00 B) in table 'dlv.tmp (e123dca7)'. Merges are processing significantly slower than inserts."), transient(252)],
  ["a proxy's limit", answer(413, "<html>Request Entity Too Large</html>"), split(0)],
  // settings
  ["26.7 unknown setting", modern(404, 115, "Unknown setting 'nosuch_setting'."), unknown(115, "nosuch_setting")],
  ["18.16 unknown setting", old(404, 115, "Unknown setting async_insert"), unknown(115, "async_insert")],
  ["26.7 setting held by the profile", modern(500, 452, "Setting async_insert should not be changed."), unknown(452, "async_insert")],
  // transient
  ["26.7 memory", modern(500, 241, "Query memory limit exceeded: would use 512.44 KiB"), split(241)],
  ["18.16 memory", old(500, 241, "Memory limit (for query) exceeded: would use 2.00 MiB"), split(241)],
  ["26.7 timeout", modern(408, 159, "Timeout exceeded: elapsed 1000.000 ms, maximum: 1000 ms"), split(159)],
  ["18.16 timeout", old(500, 159, "Timeout exceeded: elapsed 1.000000036 seconds, maximum: 1"), split(159)],
  ["too many queries, when to come back", {
    ...modern(500, 202, "Too many simultaneous queries. Maximum: 100"),
    headers: { "x-clickhouse-exception-code": "202", "retry-after": "3" },
  }, transient(202, 3000)],
  ["keeper", modern(500, 999, "Coordination::Exception: Session expired"), transient(999)],
  ["an unknown code", modern(500, 54321, "Something of the future"), transient(54321)],
  ["Poco", answer(500, "Poco::Exception. Code: 1000, e.code() = 111, e.displayText() = Connection refused (version 26.7.2.1)\n"), transient(1000)],
  // an exception after a 200
  ["26.7 in a 200", answer(200, "\r\n__exception__\r\nswqhpxpvhvvpzsri\r\nCode: 241. DB::Exception: Memory limit exceeded (MEMORY_LIMIT_EXCEEDED) (version 26.7.2.1)\n275 swqhpxpvhvvpzsri\r\n__exception__\r\n"), transient(241)],
  ["18.16 in a 200", answer(200, "0\n0\nCode: 27, e.displayText() = DB::Exception: Cannot parse input: (at row 2)\n, e.what() = DB::Exception\n"), row(27, 2)],
  ["only the header of a 200", answer(200, "", { "x-clickhouse-exception-code": "60" }), table(60)],
  // nobody spoke for ClickHouse
  ["network", { ...failed("connection refused"), aborted: false }, transient(0)],
  ["503", answer(503, "", { "retry-after": "Thu, 01 Jan 2026 00:00:05 GMT" }), transient(0, 5000)],
  ["429", answer(429, "slow down", { "retry-after": "999999" }), transient(0, 3_600_000)],
  ["502", answer(502, "<html>Bad Gateway</html>", { "retry-after": "soon" }), transient(0)],
  ["504 in the past", answer(504, "", { "retry-after": "Thu, 01 Jan 2025 00:00:00 GMT" }), transient(0, 0)],
  ["401 of a proxy", answer(401, "who are you?"), transient(0)],
  ["404 of something else", answer(404, "There is no handle /nopath\n"), transient(0)],
  ["200 of something else", answer(200, "<html>It works!</html>"), transient(0)],
  ["204", answer(204, ""), transient(0)],
];

describe("verdict", () => {
  assert.equal(new Set(cases.map(([name]) => name)).size, cases.length);
  for (const [name, given, expected] of cases) {
    test(name, () => {
      const answered = "ok" in given ? given : done(given);
      const verdict = verdictOf(answered, NOW_MS) as Verdict & Record<string, unknown>;
      for (const [key, value] of Object.entries(expected)) {
        assert.deepEqual(verdict[key], value, `${key} of ${JSON.stringify(verdict)}`);
      }
      if (verdict.kind !== "stored") {
        assert.match(verdict.message, /\S/);
        assert.doesNotMatch(verdict.message, /\n|^Code:|\(version|e\.what|\(at row \d+\)\s*$/);
        assert.ok(verdict.message.length <= 500);
      }
    });
  }

  // deno-fmt-ignore: a table is read line by line.
  const stored: [string, Answer | Exchanged, boolean][] = [
    ["no answer came", { ...failed("connection broken off"), aborted: false }, true],
    ["no answer came in time", { ...failed("no answer within 1000 ms"), aborted: false, late: true }, true],
    ["no connection was made", { ...failed("connection refused"), aborted: false, unsent: true }, false],
    ["502 of a proxy", answer(502, "Bad Gateway"), true],
    ["504 of a proxy", answer(504, "Gateway Timeout"), true],
    ["503 of a proxy", answer(503, "no server"), false],
    ["401 of a proxy", answer(401, "who are you?"), false],
    ["413 of a proxy", answer(413, "too large"), false],
    ["an empty 200 without ClickHouse's headers", answer(200, ""), true],
    ["its time was over, nothing was written", { ...modern(408, 159, "Timeout exceeded"), headers: { "x-clickhouse-exception-code": "159", "x-clickhouse-summary": '{"written_rows":"0"}' } }, false],
    ["its time was over, rows were written", { ...modern(408, 159, "Timeout exceeded"), headers: { "x-clickhouse-exception-code": "159", "x-clickhouse-summary": '{"read_rows":"4","written_rows":"2"}' } }, true],
    ["its time was over, nothing tells", modern(500, 159, "Timeout exceeded"), true],
    ["its time was over in a view", modern(408, 159, "Timeout exceeded: while pushing to view d.v (01)"), true],
    ["a view fails", modern(500, 153, "Division by zero: while pushing to view dlv.mv."), true],
    ["a view needs too much memory", modern(500, 241, "Query memory limit exceeded: while pushing to view dlv.mv (01)"), true],
    ["too much memory for the query", modern(500, 241, "Query memory limit exceeded: would use 512.44 KiB"), false],
    ["too much memory in total", modern(500, 241, "(total) memory limit exceeded"), false],
    ["too many parts", modern(500, 252, "Too many parts (300)"), false],
    ["too many queries", modern(500, 202, "Too many simultaneous queries"), false],
    ["a shard's connection", modern(500, 210, "Connection reset by peer"), true],
    ["no connection to a shard", modern(500, 279, "All connection tries failed"), true],
    ["a socket's time", modern(500, 209, "Timeout exceeded while reading from socket"), true],
    ["a quorum", modern(500, 319, "Unknown status, client must retry"), true],
    ["too few replicas", modern(500, 285, "Number of alive replicas (1) is less than requested quorum (2)"), true],
    ["Keeper", modern(500, 999, "Session expired"), true],
    ["a replica became read-only", modern(500, 242, "Table is in readonly mode"), false],
    ["it was cancelled", modern(500, 394, "Query was cancelled"), true],
    ["a library's exception", answer(500, "Poco::Exception. Code: 1000, e.code() = 104, Connection reset by peer (version 26.7.2.1)\n"), true],
    ["a code of the future", modern(500, 54321, "Something"), true],
    ["no such table", modern(404, 60, "Table d.t does not exist"), false],
    ["no rights", modern(500, 497, "Not enough privileges"), false],
    ["a row", modern(400, 27, `Cannot parse input: ${K}: (at row 2)`, PARSING), false],
  ];
  for (const [what, given, unknown] of stored) {
    test(`${what}: ${unknown ? "may be" : "is not"} stored`, () => {
      assert.equal(mayBeStored(verdictOf("ok" in given ? given : done(given), NOW_MS)), unknown);
    });
  }

  test("the message is what a person wants to read", () => {
    const message = (given: Answer) => {
      const verdict = verdictOf(done(given), NOW_MS);
      return verdict.kind === "stored" ? "" : verdict.message;
    };
    assert.equal(
      message(modern(400, 38, `Cannot parse date: value is too short: ${K}: (at row 2)`, PARSING)),
      `Cannot parse date: value is too short: ${K}`,
    );
    assert.equal(
      message(old(401, 193, "Wrong password for user default")),
      "Wrong password for user default",
    );
    assert.equal(
      message(
        modern(
          400,
          27,
          `Cannot parse input: expected '"' before: 'x"}\\n{"secret":"of another row"}': ${K}: (at row 1)`,
          PARSING,
        ),
      ),
      `Cannot parse input: expected '"' before: 'x"}…': ${K}`,
    );
    assert.equal(message(modern(500, 27, "y".repeat(9999))).length, 500);
  });

  test("a redirect names the host that it leads to, and nothing secret of it", () => {
    const verdict = verdictOf(
      done(answer(302, "", { location: "https://user:secret@login.example:8443/path?token=1" })),
      NOW_MS,
    );
    assert.equal(verdict.kind, "transient");
    assert.match("message" in verdict ? verdict.message : "", /login\.example:8443/);
    assert.doesNotMatch("message" in verdict ? verdict.message : "", /secret|token/);
  });
});
