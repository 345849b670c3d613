/**
 * Columns of several tables in one question, and none that keeps up the others.
 * Runs once: the server is a model; servers_test.ts has real ones on both runtimes.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Answered } from "../../src/contracts.ts";
import type { Row } from "../../src/deliver/query.ts";
import { ShortQuestions } from "../../src/deliver/plan.ts";
import { fakeClock, never } from "./kit.ts";

const down: Answered<never> = { ok: false, code: 0, problem: "down" };
const broken: Answered<never> = { ok: false, code: 76, problem: "CANNOT_OPEN_FILE" };

/** A server where a table has one column, called as it is; `says` may answer otherwise, or never. */
function room(says: (sql: string) => Answered<readonly Row[]> | "never" | null = () => null) {
  const clock = fakeClock();
  const asked: string[] = [];
  const questions = new ShortQuestions({
    clock,
    database: "db",
    signal: never,
    query: {
      rows(sql) {
        asked.push(sql);
        const answer = says(sql);
        if (answer === "never") return new Promise(() => {});
        const tables = [...sql.slice(sql.indexOf(" AND ")).matchAll(/'(\w+)'/g)];
        const rows = tables.map(([, table]) => ({ table, name: `of ${table}` }));
        return Promise.resolve(answer ?? { ok: true, value: rows });
      },
    },
  });
  const names = async (table: string) => {
    const told = await questions.ask(table);
    return told.ok ? told.value.map(({ name }) => name) : told.problem;
  };
  return { clock, asked, names };
}

describe("the short questions", () => {
  test("what is asked for at once is one question, and what comes meanwhile the next", async () => {
    const { asked, names } = room();
    const first = [names("a"), names("b"), names("b")];
    await Promise.resolve();
    await Promise.resolve();
    assert.equal(asked.length, 1);
    const then = [names("b"), names("c")];
    assert.deepEqual(await Promise.all(first), [["of a"], ["of b"], ["of b"]]);
    assert.deepEqual(await Promise.all(then), [["of b"], ["of c"]]);
    assert.deepEqual(asked.map((sql) => sql.slice(sql.indexOf(" AND "))), [
      " AND table IN ('a', 'b')",
      " AND table IN ('b', 'c')",
    ]);
    assert.deepEqual(await names("d"), ["of d"]);
    assert.match(asked[2]!, /database = 'db' AND table = 'd'$/);
  });

  test("each database is asked for its own, since the others may be slow", async () => {
    const { asked, names } = room();
    const all = await Promise.all(["a", "other.a", "other.b", "b"].map(names));
    assert.deepEqual(all, [["of a"], ["of a"], ["of b"], ["of b"]]);
    assert.equal(asked.length, 2);
    assert.match(asked[1]!, /database = 'other' AND table IN \('a', 'b'\)$/);
  });

  test("a table that is not there has no columns, and the others have theirs", async () => {
    const { names } = room((sql) =>
      sql.includes(" IN ") ? { ok: true, value: [{ table: "b", name: "of b" }] } : null
    );
    assert.deepEqual(await Promise.all(["a", "b"].map(names)), [[], ["of b"]]);
  });

  test("where one spoils the answer each is asked for by itself", async () => {
    const { names } = room((sql) => / IN |'bad'/.test(sql) ? broken : null);
    assert.deepEqual(await Promise.all(["a", "bad", "b"].map(names)), [
      ["of a"],
      broken.problem,
      ["of b"],
    ]);
  });

  test("one that gets no answer keeps up no other, also not those that come later", async () => {
    const { clock, names } = room((sql) => sql.includes("'stuck'") ? "never" : null);
    void names("stuck");
    const other = names("a");
    await Promise.resolve();
    const later = names("b");
    clock.advance(250);
    assert.deepEqual(await other, ["of a"]);
    clock.advance(250);
    assert.deepEqual(await later, ["of b"]);
  });

  test("a server that is away is not asked once more for each", async () => {
    const { asked, names } = room(() => down);
    assert.deepEqual(await Promise.all(["a", "b"].map(names)), ["down", "down"]);
    assert.equal(asked.length, 1);
  });

  test("a thousand tables are asked for in turn", async () => {
    const { asked, names } = room();
    const tables = Array.from({ length: 1000 }, (_, at) => `t${at}`);
    assert.deepEqual(await Promise.all(tables.map(names)), tables.map((table) => [`of ${table}`]));
    assert.ok(asked.length > 10 && asked.every((sql) => sql.length < 2000));
  });
});
