/**
 * The flags of the commands that speak to the fleet, and what their help says of them.
 * Runs once: flags and help are text; fleet_test.ts of test/system has the commands.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import { controlCommand, type ControlFlags, flagsOf } from "../../src/commands/control.ts";
import type { Command } from "../../src/contracts.ts";
import { helpText } from "../../src/settings/help.ts";
import { load } from "../settings/kit.ts";

function flags(command: Command, ...argv: string[]): ControlFlags {
  const loaded = load({ argv, only: ["nats-url"] }, flagsOf(command));
  assert.ok(loaded.ok, loaded.ok ? "" : loaded.problems.join("\n"));
  return loaded.extra as unknown as ControlFlags;
}

function problems(command: Command, ...argv: string[]): readonly string[] {
  const loaded = load({ argv, only: ["nats-url"] }, flagsOf(command));
  return loaded.ok ? [] : loaded.problems;
}

const waits: [argv: string[], wait: number | null | undefined][] = [
  [[], null],
  [["--wait"], 0],
  [["--wait", "--yes"], 0],
  [["--wait", "30s"], 30_000],
  [["--wait=1m"], 60_000],
];
for (const [argv, wait] of waits) {
  test(`stop --batch 5 ${argv.join(" ")}`, () => {
    const read = flags("stop", "--batch", "5", ...argv);
    assert.deepEqual([read.batch, read.wait], [5, wait]);
    assert.equal(read.yes, argv.includes("--yes"));
  });
}

test("flags that make no sense are named", () => {
  assert.match(problems("stop", "--batch", "0").join(), /^--batch: expected a whole number from 1/);
  assert.match(problems("stop", "--wait", "soon").join(), /^--wait: expected a duration.+"soon"$/);
  assert.match(problems("stop", "--batch", "--wait").join(), /^--batch: expected .+ got nothing$/);
  assert.match(problems("pause", "--batch", "5").join(), /^--batch: unknown flag/);
  assert.match(problems("stop", "--watch").join(), /^--watch: unknown flag/);
  assert.match(problems("status", "--dry-run").join(), /^--dry-run: unknown flag/);
});

const told: [Command, RegExp[]][] = [
  ["status", [/--watch/, /Ctrl-C/, /silent/, /sorted by group and id/]],
  ["stop", [/--batch N/, /--wait DURATION/, /--yes/, /--dry-run/, /did not get the command/]],
  ["pause", [/--dry-run/]],
  ["resume", [/--dry-run/]],
  ["flush", [/--dry-run/]],
];
for (const [command, parts] of told) {
  test(`${command} --help tells what it takes, at most 100 columns wide`, () => {
    const help = helpText(command, controlCommand(command).page);
    for (
      const part of [...parts, /--target TARGET/, /--timeout DURATION/, /--json/, /Exit code 0/]
    ) {
      assert.match(help.replace(/\s+/g, " "), part);
    }
    assert.ok(help.split("\n").every((line) => line.length <= 100), help);
  });
}
