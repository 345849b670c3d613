/**
 * Commands that take some settings and flags of their own; help and docs.
 * Runs once: functions of values alone: nothing of a runtime is asked.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { helpText, settingsMarkdown } from "../../src/settings/help.ts";
import { boolean, duration, matching } from "../../src/settings/kinds.ts";
import { editDistance } from "../../src/kernel/text.ts";
import { section, setting } from "../../src/settings/spec.ts";
import type { SettingName } from "../../src/settings/settings.ts";
import { TABLE } from "../../src/settings/table.ts";
import { load } from "./kit.ts";

const EXTRA = section("Flags of stop", [
  setting({
    name: "target",
    kind: matching("TARGET", "all, GROUP or GROUP.ID", /^[\w-]+(\.[\w-]+)?$/),
    default: "all",
    meaning: "who stops",
  }),
  setting({
    name: "timeout",
    kind: duration({ min: 100, max: 3_600_000 }),
    default: "30s",
    meaning: "how long to wait",
  }),
  setting({ name: "json", kind: boolean, default: "false", meaning: "print JSON" }),
]);
const ONLY: SettingName[] = ["nats-url", "nats-subject", "nats-token", "log-level"];

describe("a command with flags of its own", () => {
  test("gets them typed, beside the settings that it takes", () => {
    const argv = ["--target", "eu", "--timeout=5s", "--json", "--nats-url", "ws://n:1"];
    const env = { SHISHI_LISTEN: "nonsense", SHISHI_NATS_TOKEN: "t", SHISHI_CONFIG: "c" };
    const files = { c: 'table = "not a table"\nlog-level = "warn"' };
    const loaded = load({ argv, env, files, only: ONLY }, EXTRA);
    assert.ok(loaded.ok, loaded.ok ? "" : loaded.problems.join("\n"));
    const timeoutMs: number = loaded.extra.timeout;
    const target: string = loaded.extra.target;
    assert.deepEqual([target, timeoutMs, loaded.extra.json], ["eu", 5000, true]);
    assert.deepEqual(loaded.settings.nats, {
      servers: ["ws://n:1"],
      subject: "shishi",
      auth: { kind: "token", token: "t" },
    });
    assert.equal(loaded.settings.logLevel, "warn");
    assert.equal(loaded.settings.table, "analytics_events");
    assert.ok(Object.isFrozen(loaded.extra));
  });

  test("has their defaults", () => {
    const loaded = load({ only: ONLY }, EXTRA);
    assert.deepEqual(loaded.ok && { ...loaded.extra }, {
      target: "all",
      timeout: 30_000,
      json: false,
    });
  });

  test("refuses other flags, unknown variables and bad values of its own", () => {
    const argv = ["--table", "t", "--no-create-table", "--target=a.b.c", "--timeot=1s"];
    const env = { SHISHI_TARGET: "eu" };
    const loaded = load({ argv, env, only: ONLY }, EXTRA);
    assert.deepEqual(!loaded.ok && loaded.problems, [
      "--table: not a flag of this command",
      "--no-create-table: not a flag of this command",
      "--timeot: unknown flag; did you mean --timeout?",
      "SHISHI_TARGET: unknown environment variable",
      '--target: expected all, GROUP or GROUP.ID, got "a.b.c"',
    ]);
  });
});

describe("help", () => {
  const help = helpText("serve", { about: "Runs the collector." });
  const lines = help.split("\n");

  for (const { name } of TABLE) {
    test(`tells ${name}`, () => {
      const variable = `(SHISHI_${name.toUpperCase().replaceAll("-", "_")})`;
      assert.match(help, new RegExp(`^  --(\\[no-\\])?${name}( |$)`, "m"));
      assert.ok(help.includes(variable));
    });
  }
  test("gives a default as it can be written", () => {
    assert.ok(lines.includes(
      "  --insert-timeout DURATION      of one attempt to insert, body included  [30s]",
    ));
  });
  test("fits 100 columns and ends without a blank", () => {
    assert.deepEqual(lines.filter((line) => line.length > 100 || /\s$/.test(line)), []);
    assert.notEqual(lines.at(-1), "");
  });
  test("of another command has its flags first and only its settings", () => {
    const stop = helpText("stop", { only: ONLY, extra: EXTRA });
    assert.match(stop, /^Usage: shishi stop /);
    assert.ok(stop.indexOf("--target TARGET") < stop.indexOf("--nats-url"));
    assert.ok(stop.includes("who stops  [all]"));
    assert.ok(!stop.includes("--listen") && !stop.includes("SHISHI_TARGET"));
    assert.ok(stop.includes("--config"));
  });
});

describe("the table of docs/settings.md", () => {
  const rows = settingsMarkdown().trimEnd().split("\n");
  test("has one row of five cells for each setting", () => {
    assert.equal(rows.length, TABLE.length + 2);
    for (const row of rows) {
      assert.equal(row.split(/(?<!\\)\|/).length, 7, row);
    }
    assert.deepEqual(
      rows.slice(2).map((row) => /^\| `([a-z-]+)`/.exec(row)?.[1]),
      TABLE.map(({ name }) => name),
    );
  });
  test("gives default, meaning and what takes a change", () => {
    assert.ok(
      rows.some((row) =>
        row ===
          "| `insert-timeout` | DURATION | `30s` | of one attempt to insert, body included | reload |"
      ),
    );
  });
});

test("edit distance", () => {
  const cases: [string, string, number][] = [
    ["", "", 0],
    ["a", "", 1],
    ["table", "tabel", 1],
    ["flush", "flsh", 1],
    ["kitten", "sitting", 3],
  ];
  for (const [a, b, want] of cases) assert.equal(editDistance(a, b), want, `${a} ${b}`);
});
