/**
 * The manual page: what it tells, and that man and mandoc have nothing to say against it.
 * Runs once: releases are built by one runtime.
 */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { manual } from "../../.release/manual.ts";
import { escape, line } from "../../.release/roff.ts";
import { commandNames } from "../../src/commands/all.ts";
import { envName } from "../../src/settings/spec.ts";
import { TABLE } from "../../src/settings/table.ts";
import { removeDir, tempFile } from "../kit/temp.ts";

const page = await manual({ version: "1.2.3", epochS: 86_400 * 365 });

test("it tells every command, and every setting with its variable", () => {
  for (const name of commandNames) assert.ok(page.includes(`\n.SS shishi ${name}\n`), name);
  for (const { name } of TABLE) {
    assert.ok(page.includes(escape(envName(name))), name);
    assert.match(
      page,
      new RegExp(`\\\\fB\\\\-\\\\-(\\[no\\\\-\\])?${escape(name).replaceAll("\\", "\\\\")}\\\\fR`),
    );
  }
});

test("its heading has version and date of what was built", () => {
  assert.ok(page.startsWith('.TH SHISHI 1 1971-01-01 "shishi 1.2.3" '));
});

test("signs that roff would take for its own are escaped", () => {
  assert.equal(line(".profile"), "\\&.profile");
  assert.equal(line("'x'"), "\\(aqx\\(aq");
  assert.equal(escape("a\\n --x … é"), "a\\en \\-\\-x ... \\[u00E9]");
});

const READERS: [name: string, ...args: string[]][] = [
  ["man", "--warnings=w", "--encoding=UTF-8", "--local-file"],
  ["mandoc", "-Tlint", "-Wwarning"],
];
for (const [name, ...args] of READERS) {
  test(`${name} reads it without a warning`, () => {
    const file = tempFile("shishi.1", page);
    try {
      const { status, stdout, stderr, error } = spawnSync(name, [...args, file], {
        encoding: "utf8",
        env: { ...process.env, LC_ALL: "C.UTF-8", MANWIDTH: "100", MANPAGER: "cat" },
      });
      assert.equal(error, undefined);
      assert.equal(stderr, "");
      assert.equal(status, 0, stdout);
      if (name === "man") assert.match(stdout, /--clickhouse-url URL/);
    } finally {
      removeDir(join(file, ".."));
    }
  });
}
