/**
 * The example file: it changes nothing as it is, and every line of it works.
 * Runs once: releases are built by one runtime.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import { exampleToml } from "../../.release/example.ts";
import { TABLE } from "../../src/settings/table.ts";
import type { SettingSpec } from "../../src/settings/spec.ts";
import { load, settingsOf } from "../settings/kit.ts";

const toml = exampleToml();
const specs: readonly SettingSpec[] = TABLE;
/** The settings of the file: name, and the whole line without its `#`. */
const lines = [...toml.matchAll(/^#(([a-z-]+) = .+)$/gm)].map(([, line, name]) => ({
  line: line!,
  name: name!,
}));
const files = (text: string) => ({ argv: ["--config", "/x.toml"], files: { "/x.toml": text } });

test("as it is it changes nothing", () => {
  assert.deepEqual(settingsOf(files(toml)), settingsOf({}));
});

test("every setting has its line, once", () => {
  const names = specs.filter((spec) => !spec.notInFile).flatMap(({ name, secret }) =>
    secret ? [name, `${name}-file`] : [name]
  );
  assert.deepEqual(lines.map(({ name }) => name), names);
});

test("the defaults, all written out, are the defaults", () => {
  const fixed = specs.filter((spec) => typeof spec.default === "string").map(({ name }) => name);
  const text = lines.filter(({ name }) => fixed.includes(name)).map(({ line }) => line).join("\n");
  assert.ok(fixed.length > 10);
  assert.deepEqual(settingsOf(files(text)), settingsOf({}));
});

for (const { line, name } of lines) {
  test(`${name} is known, and of a type that it may have`, () => {
    const loaded = load(files(line));
    // What has no default shows its form, which need not be a value.
    const problems = loaded.ok ? [] : loaded.problems;
    assert.ok(problems.every((problem) => !/unknown|not TOML|cannot be set/.test(problem)), line);
  });
}

test("each comment line tells the setting below it", () => {
  for (const { name, meaning } of specs.filter((spec) => !spec.notInFile)) {
    const [above = ""] = toml.split(`\n#${name} = `);
    const said = above.slice(above.lastIndexOf("\n\n") + 2).replaceAll("\n#", "").slice(2);
    assert.ok(said.startsWith(meaning), `${name}: ${said}`);
  }
  assert.deepEqual(toml.split("\n").filter((line) => line.length > 100), []);
});
