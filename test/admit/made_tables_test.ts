/**
 * What the door does with rows of a table that they make, and with keys that are no columns.
 * Runs once: functions of values alone: nothing of a runtime is asked.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Columns, Remade, TableMaker, UnknownKeys } from "../../src/contracts.ts";
import { failed } from "../../src/kernel/result.ts";
import { columnsOf } from "../kit/columns.ts";
import { appOn, bytesOf, post, Script } from "./kit.ts";

type Reply = (columns: Columns) => Remade;

/** Another one decodes meanwhile, in the memory that was lent. */
function scripted(policy: UnknownKeys | "widen", ...columns: readonly string[]) {
  const widen = policy === "widen";
  const asked: [string, string[] | null, string][] = [];
  const script = new Script();
  script.columns = columns.length === 0 ? "missing" : columnsOf(columns);
  let says: Reply = (columns) => ({ ok: true, columns, created: false, added: [] });
  const next = { columns: columnsOf(columns.length === 0 ? ["a Nullable(Int64)"] : columns) };
  const change = async (keys: ReadonlySet<string> | null, rows: Uint8Array, what: string) => {
    await post(app, "/events", '{"eventType":"another"}'.repeat(50));
    asked.push([what, keys && [...keys], new TextDecoder().decode(rows)]);
    return says(next.columns);
  };
  const maker: TableMaker = {
    makes: (table) => table.startsWith("log_"),
    unknownKeys: () => policy === "widen" ? "column" : policy,
    make: (_table, rows) => change(null, rows, "make"),
    extend: (_table, keys, rows) => change(keys, rows, "extend"),
    propose: () => Promise.resolve(failed("not here")),
    widens: widen,
    widen: (_table, misfits) =>
      change(new Set(misfits.keys()), bytesOf(JSON.stringify([...misfits])), "widen"),
  };
  const app = appOn(script, {}, undefined, maker);
  const rows = async (body: string) => {
    const answer = await post(app, "/events/log_a", body);
    const taken = script.chunks.filter(({ shape }) => shape === "row");
    const chunk = taken.at(-1);
    const lines = chunk === undefined ? null : new TextDecoder().decode(chunk.body);
    return { ...answer, chunk, lines };
  };
  return { rows, asked, next, script, app, say: (reply: Reply) => void (says = reply) };
}

describe("a table that is missing", () => {
  test("is made of the rows, which are then held against it", async () => {
    const { rows, asked, say } = scripted("error");
    say((columns) => ({ ok: true, columns, created: true, added: ["a Nullable(Int64)"] }));
    const { status, body, lines, chunk } = await rows('{"a":1}\n{"a":1.5}\n{"a":2}');
    assert.equal(status, 202);
    assert.deepEqual(body, {
      accepted: 2,
      rejected: 1,
      ack: "memory",
      created: "log_a",
      columns: ["a Nullable(Int64)"],
      errors: [{
        index: 1,
        error: "a: 1.5 does not fit Int64 (-9223372036854775808 to 9223372036854775807)",
      }],
    });
    assert.equal(lines, '{"a":1}\n{"a":2}\n');
    assert.equal(chunk?.fingerprint, "f");
    assert.deepEqual(asked, [["make", null, '{"a":1}\n{"a":1.5}\n{"a":2}\n']]);
  });

  test("is not made by a request that is refused for one of its rows", async () => {
    const { app, asked } = scripted("error");
    const body = '{"a":1}\nno row\n{"a":2}';
    const { status, body: said } = await post(app, "/events/log_a?strict=1", body);
    assert.deepEqual([status, said.accepted, said.rejected, said.created], [400, 0, 3, undefined]);
    assert.deepEqual(asked, []);
    await post(app, "/events/log_a?strict=1", '{"a":1}');
    assert.equal(asked.length, 1);
  });

  test("is made of CSV too, in which numbers are guessed, unless they are quoted", async () => {
    const { app, asked } = scripted("error");
    const csv = 'n,x,s,q,b,e\n1,1.50,a1,"7",TRUE,\n';
    await post(app, "/events/log_a", csv, { "content-type": "text/csv" });
    assert.deepEqual(asked[0]?.[2], '{"n":1,"x":1.50,"s":"a1","q":"7","b":true}\n');
  });

  test("is missing where no glob makes it, or no row could", async () => {
    const { asked, app, rows } = scripted("error");
    assert.equal((await post(app, "/events/flights", '{"a":1}')).status, 404);
    assert.equal((await rows("[1]")).status, 400);
    assert.deepEqual(asked, []);
  });

  test("that cannot be made is refused with the reason", async () => {
    const { rows, say, script } = scripted("error");
    for (const [why, status] of [["right", 403], ["rows", 400], ["kind", 404]] as const) {
      say(() => ({ ...failed(`because of ${why}`), why }));
      const answer = await rows('{"a":1}');
      assert.deepEqual([answer.status, answer.body], [status, { error: `because of ${why}` }]);
    }
    assert.equal(script.reserved, 0);
  });

  test("and a ClickHouse that is away: the rows wait, unseen", async () => {
    const { rows, say } = scripted("error");
    say(() => ({ ...failed("away"), why: "away" }));
    const { status, lines, chunk } = await rows('{"a":1}');
    assert.deepEqual([status, lines, chunk?.fingerprint], [202, '{"a":1}\n', null]);
  });
});

describe("a key that is no column", () => {
  test("column: the table gets one, and the answer names it", async () => {
    const { rows, asked, say, next } = scripted("column", "a Int64");
    next.columns = columnsOf(["a Int64", "b Int64", "c String"], "g");
    say((columns) => ({ ok: true, columns, created: false, added: ["b Int64", "c String"] }));
    const { body, lines, chunk } = await rows('{"a":1}\n{"c":"x","b":2}');
    assert.deepEqual(body, {
      accepted: 2,
      rejected: 0,
      ack: "memory",
      columns: ["b Int64", "c String"],
      errors: [],
    });
    assert.equal(lines, '{"a":1}\n{"c":"x","b":2}\n');
    assert.equal(chunk?.fingerprint, "g");
    assert.deepEqual([...chunk?.keys ?? []].sort(), ["a", "b", "c"]);
    assert.deepEqual(asked, [["extend", ["c", "b"], '{"a":1}\n{"c":"x","b":2}\n']]);
  });

  test("column: rows whose keys are known ask for nothing", async () => {
    const { rows, asked } = scripted("column", "a Int64", "b Int64");
    await rows('{"a":1}\n{"b":2}');
    assert.deepEqual(asked, []);
  });

  test("column: what the table has not got is an error that says why", async () => {
    const { rows, say } = scripted("column", "a Int64");
    say(() => ({ ...failed("GRANT it"), why: "right" }));
    const { body } = await rows('{"a":1}\n{"b":2}');
    assert.deepEqual([body.accepted, body.errors], [1, [
      { index: 1, error: "b: no column of log_a: GRANT it" },
    ]]);
    say((columns) => ({ ok: true, columns, created: false, added: [] }));
    const again = await rows('{"b":2}');
    assert.equal(again.body.errors[0].error, "b: no column of log_a, which has a");
  });

  test("column: while ClickHouse is away rows wait in batches of their own, values held against what is known", async () => {
    const { rows, say } = scripted("column", "a UInt8");
    say(() => ({ ...failed("away"), why: "away" }));
    const { body, lines, chunk } = await rows('{"a":1,"b":2}\n{"a":300,"b":2}');
    assert.deepEqual([body.accepted, body.rejected, lines], [1, 1, '{"a":1,"b":2}\n']);
    assert.equal(chunk?.fingerprint, null);
    assert.ok(chunk?.keys?.has("b"));
  });

  test("skip: it is left out", async () => {
    const { rows } = scripted("skip", "a Int64");
    const { body, lines, chunk } = await rows('{"a":1,"b":[{"c":1}]}\n{"x":1}');
    assert.deepEqual([body.accepted, lines], [2, '{"a":1}\n{}\n']);
    assert.deepEqual([...chunk?.keys ?? []], ["a"]);
  });

  test("keep: all of them go into one column, each as the text of itself", async () => {
    const { rows } = scripted("keep", "a Int64", "_rest Map(String, String)");
    const { lines, chunk } = await rows('{"b":1.50,"a":1,"c":"t\\"","d":{"e":[null]},"f":null}');
    assert.equal(
      lines,
      '{"a":1,"_rest":{"b":"1.50","c":"t\\"","d":"{\\"e\\":[null]}","f":"null"}}\n',
    );
    assert.deepEqual([...chunk?.keys ?? []].sort(), ["_rest", "a"]);
  });

  test("keep: as they are in a column of JSON; a row that has the column too is an error", async () => {
    const { rows } = scripted("keep", "a Int64", "_rest JSON");
    assert.equal((await rows('{"b":1.5,"a":1}')).lines, '{"a":1,"_rest":{"b":1.5}}\n');
    const { body } = await rows('{"b":1,"_rest":{}}');
    assert.equal(body.errors[0].error, "_rest: keys that are no columns go there");
  });

  test("keep: a table without the column gets it", async () => {
    const { rows, asked, next } = scripted("keep", "a Int64");
    next.columns = columnsOf(["a Int64", "_rest Map(String, String)"]);
    assert.equal((await rows('{"b":1}')).lines, '{"_rest":{"b":"1"}}\n');
    assert.deepEqual(asked.map(([what, keys]) => [what, keys]), [["extend", ["_rest"]]]);
  });

  test("error: rows that do not fit make what is known of the table doubtful", async () => {
    const { rows, script } = scripted("error", "a UInt8");
    await rows('{"a":1}');
    assert.deepEqual(script.doubted, []);
    await rows('{"a":300}');
    await rows('{"b":1}\n{"a":1}');
    assert.deepEqual(script.doubted, ["log_a", "log_a"]);
  });
});

describe("a value that its column cannot hold", () => {
  test("widens it, after new columns, and the answer names both", async () => {
    const { rows, asked, say, next } = scripted("widen", "a UInt8");
    let step = 0;
    say(() => {
      const columns = columnsOf(
        step++ === 0 ? ["a UInt8", "b Int64"] : ["a Int64", "b Int64"],
        `${step}`,
      );
      return { ok: true, columns, created: false, added: [`step ${step}`] };
    });
    next.columns = columnsOf([]);
    const { body, lines, chunk } = await rows('{"a":300}\n{"a":1,"b":2}\n{"a":"soon"}');
    assert.deepEqual([body.accepted, body.rejected, body.columns], [2, 1, ["step 1", "step 2"]]);
    assert.deepEqual(lines, '{"a":300}\n{"a":1,"b":2}\n');
    assert.equal(chunk?.fingerprint, "2");
    assert.deepEqual(asked.map(([what, keys]) => [what, keys]), [["extend", ["b"]], ["widen", [
      "a",
    ]]]);
    assert.equal(asked[1]![2], '[["a",["300","\\"soon\\""]]]');
    assert.match(body.errors[0].error, /^a: "soon" does not fit Int64 \(/);
  });

  test("where it may not be widened the error says what lets it", async () => {
    const { rows, say } = scripted("widen", "a UInt8");
    say(() => ({ ...failed("GRANT it"), why: "right" }));
    const { body } = await rows('{"a":300}');
    assert.equal(body.errors[0].error, "a: 300 does not fit UInt8 (0 to 255); GRANT it");
    say(() => ({ ...failed("no"), why: "rows" }));
    assert.equal(
      (await rows('{"a":300}')).body.errors[0].error,
      "a: 300 does not fit UInt8 (0 to 255)",
    );
  });
});
