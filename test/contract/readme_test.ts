/** The README tells what the source says. `README_WRITE=1` writes the table instead of checking it. */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { commandNames } from "../../src/commands/all.ts";
import { createLedger } from "../../src/meter/ledger.ts";
import { createPrometheus } from "../../src/meter/prometheus.ts";
import { settingsMarkdown } from "../../src/settings/help.ts";

const README = fileURLToPath(new URL("../../README.md", import.meta.url));
const BEGIN = "<!-- settings -->\n";
const END = "<!-- /settings -->";

function parts(): { before: string; table: string; after: string } {
  const text = readFileSync(README, "utf8");
  const begin = text.indexOf(BEGIN) + BEGIN.length;
  const end = text.indexOf(END);
  assert.ok(begin >= BEGIN.length && end >= begin, "the README marks where its settings table is");
  return { before: text.slice(0, begin), table: text.slice(begin, end), after: text.slice(end) };
}

test("the settings table is the one of the source", () => {
  const { before, table, after } = parts();
  if (process.env.README_WRITE === "1") writeFileSync(README, before + settingsMarkdown() + after);
  else assert.equal(table, settingsMarkdown(), "README_WRITE=1 bun test writes it anew");
});

test("every command is named", () => {
  const text = readFileSync(README, "utf8");
  for (const name of commandNames) assert.match(text, new RegExp(`\\b${name}\\b`));
});

test("every metric is named, and no other", async () => {
  const text = readFileSync(README, "utf8").split("## Prometheus metrics")[1]!.split("\n## ")[0]!;
  const none = { rows: () => 0, memoryBytes: () => 0, spoolBytes: () => 0, oldestMs: () => 0 };
  const log = { debug() {}, info() {}, warn() {}, error() {} };
  const scrape = await createPrometheus({
    ledger: createLedger(),
    holdings: { ...none, byTable: () => new Map() },
    log,
    version: "0",
    runtime: "test 1",
    process: { rssBytes: () => 1 },
  }).text();
  const exported = [...scrape.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name!).sort();
  const named = [...text.matchAll(/`((?:analytics|shishi|process)_\w+)`/g)].map(([, name]) =>
    name!
  );
  assert.deepEqual([...new Set(named)].sort(), exported);
});

test("the lines that sign a command are the ones that are tested", () => {
  const lines = new URL("../remote/signed_command.sh", import.meta.url);
  assert.ok(readFileSync(README, "utf8").includes(readFileSync(lines, "utf8")));
});
