/**
 * Input that nobody thought of.
 * Runs once: functions of values alone: nothing of a runtime is asked.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { loadSettings } from "../../src/settings/settings.ts";
import { TABLE } from "../../src/settings/table.ts";

test("anything at all is read or refused, never thrown at", () => {
  const names = TABLE.flatMap(({ name }) => [name, `no-${name}`, `${name}-file`, "__proto__"]);
  const name = fc.constantFrom(...names);
  const value = fc.oneof(
    fc.string({ unit: "binary" }),
    fc.constantFrom(
      "-1",
      "f",
      "[::1]:",
      "http://[",
      "http://%",
      "%zz@",
      ",",
      "1e9",
      "0h",
      "*",
      "--",
    ),
  );
  const word = fc.oneof(value, fc.tuple(name, value).map(([n, v]) => `--${n}=${v}`));
  const env = fc.dictionary(
    name.map((n) => `SHISHI_${n.toUpperCase().replaceAll("-", "_")}`),
    value,
  );
  const lines = fc.array(fc.tuple(
    name,
    fc.oneof(
      value.map((v) => JSON.stringify(v)),
      fc.constantFrom(
        "1",
        "-1.5",
        "nan",
        "[]",
        "[[1]]",
        "{a=1}",
        "2020-01-01",
        "[{}]",
        "99999999999999999999",
      ),
    ),
  ));
  fc.assert(fc.property(fc.array(word), env, lines, value, (argv, env, lines, host) => {
    const files = { f: lines.map(([key, text]) => `${key} = ${text}\n`).join("") };
    const readFile = (path: string) => {
      if (path !== "f") throw new Error("no");
      return files.f;
    };
    const around = { argv: [...argv, "--config=f"], env, readFile, hostname: () => host };
    const loaded = loadSettings(around);
    assert.ok(loaded.ok || loaded.problems.length > 0);
  }));
});
