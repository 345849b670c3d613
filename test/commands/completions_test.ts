/**
 * Completions, tried by completing: in bash, zsh and fish themselves, as somebody types.
 * Runs once: the shells that complete are the same, and so is the text that they are given.
 */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { allCommands } from "../../src/commands/all.ts";
import { completables, completionsFor } from "../../src/commands/completions.ts";
import { helpText } from "../../src/settings/help.ts";
import { removeDir, tempDir } from "../kit/temp.ts";

const commands = await allCommands();

/** What a shell offers for the last word of each line. */
type Completer = (lines: readonly string[]) => string[][];

const ZSH = fileURLToPath(new URL("./zsh_complete.zsh", import.meta.url));
let dir = "";
before(() => {
  dir = tempDir("completions");
  mkdirSync(join(dir, "data"));
  writeFileSync(join(dir, "my shishi.toml"), "");
  for (const shell of ["bash", "zsh", "fish"] as const) {
    writeFileSync(join(dir, shell), `${completionsFor(shell, commands)}\n`);
  }
});
after(() => removeDir(dir));

function run(command: string, args: readonly string[]): string[] {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd: dir,
    env: { PATH: process.env["PATH"] ?? "", HOME: dir, TERM: "dumb", LC_ALL: "C.UTF-8" },
    encoding: "utf8",
    timeout: 60_000,
  });
  assert.equal(error, undefined);
  assert.deepEqual([status, stderr], [0, ""], stdout);
  return stdout.split("\n").filter((line) => line !== "");
}

/** As readline calls it, with the line taken apart at COMP_WORDBREAKS: behind a `=` a word begins. */
const bash: Completer = (lines) =>
  lines.map((line) => {
    const words = line.split(/\s+|(=)/).filter((word) => word !== undefined && word !== "");
    if (/\s$/.test(line)) words.push("");
    return run("bash", ["--norc", "-c", BASH, "bash", ...words]);
  });

const BASH = `source ./bash; COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_shishi shishi "\${COMP_WORDS[COMP_CWORD]}" "\${COMP_WORDS[COMP_CWORD-1]}"
printf "%s\\n" "\${COMPREPLY[@]}"`;

const fish: Completer = (lines) =>
  lines.map((line) =>
    run("fish", ["--no-config", "-c", `source ./fish; complete -C ${quoted(line)}`])
      .map((each) => each.split("\t")[0]!)
  );

const zsh: Completer = (lines) => {
  const offered: string[][] = [];
  for (const each of run("zsh", ["-f", ZSH, join(dir, "zsh"), ...lines])) {
    if (each.startsWith("line:")) offered.push([]);
    if (each.startsWith("match:")) offered.at(-1)?.push(each.slice("match:".length));
  }
  return offered;
};

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** In whatever order, and as often as a shell likes; blanks are escaped, folders end in "/" or not. */
function plain(offered: readonly string[]): string[] {
  const names = offered.map((each) => each.replaceAll("\\", "").replace(/\/$/, ""));
  return [...new Set(names)].sort();
}

const EXACT: readonly [line: string, wanted: readonly string[]][] = [
  ["shishi sta", ["status"]],
  ["shishi st", ["status", "stop"]],
  ["shishi --ack ", ["clickhouse", "disk", "memory"]],
  ["shishi serve --ack d", ["disk"]],
  ["shishi --log-level ", ["debug", "error", "info", "warn"]],
  ["shishi check --compress ", ["auto", "gzip", "none"]],
  ["shishi --idle-interval ", ["off"]],
  ["shishi dead ", ["ls", "purge", "replay", "show"]],
  ["shishi dead r", ["replay"]],
  ["shishi completions ", ["bash", "fish", "zsh"]],
  ["shishi help comp", ["completions"]],
  ["shishi stop --dry", ["--dry-run"]],
  ["shishi status --watch --tim", ["--timeout"]],
  ["shishi serve --no-cr", ["--no-create-table"]],
  ["shishi serve --nats-token", ["--nats-token", "--nats-token-file"]],
  ["shishi --vers", ["--version"]],
  ["shishi stop --ack", []],
  ["shishi stop --timeout ", []],
  ["shishi nonsense ", []],
  ["shishi --data-dir da", ["data"]],
  ["shishi --config m", ["my shishi.toml"]],
  ["shishi --nats-token-file m", ["my shishi.toml"]],
  ["shishi dead replay --ca-file m", ["my shishi.toml"]],
  ["shishi import m", ["my shishi.toml"]],
  ["shishi import --table t first.csv m", ["my shishi.toml"]],
  ["shishi import --format t", ["tsv"]],
  ["shishi pipe m", []],
];

for (const [shell, complete] of [["bash", bash], ["fish", fish], ["zsh", zsh]] as const) {
  test(`${shell}: commands, words, flags, values, files and folders`, () => {
    const lines = EXACT.map(([line]) => line);
    const offered = complete(lines);
    assert.deepEqual(lines.map((line, at) => [line, plain(offered[at]!)]), EXACT);
  });

  test(`${shell}: every command, flags of serve without one, and --flag=value`, () => {
    const [first, flags, value] = complete(["shishi ", "shishi --l", "shishi --ack=d"]);
    for (const { name } of commands) assert.ok(first!.includes(name), `${name}: ${first}`);
    assert.ok(flags!.includes("--listen") && flags!.includes("--log-level"), `${flags}`);
    assert.deepEqual(value!.map((each) => each.replace(/^--ack=/, "")), ["disk"]);
  });
}

test("bash where = does not part words", () => {
  const said = run("bash", [
    "--norc",
    "-c",
    "source ./bash; COMP_WORDS=(shishi --ack=d) COMP_CWORD=1; _shishi; echo ${COMPREPLY[@]}",
  ]);
  assert.deepEqual(said, ["--ack=disk"]);
});

test("what a flag is about is shown whole, colons, commas and brackets too", () => {
  const ofFish = run("fish", ["--no-config", "-c", `source ./fish; complete -C "shishi dead --"`]);
  assert.ok(ofFish.includes("--yes\tpurge: do not ask"), ofFish.join("\n"));
  assert.ok(ofFish.includes("--json\tls, show: one line of JSON a table or a letter"));
  const ofZsh = completionsFor("zsh", commands);
  assert.ok(ofZsh.includes("'--yes[purge: do not ask]'"));
  assert.ok(ofZsh.includes("'--influx-url=[http(s)://user:password@host:port/database, "));
});

test("every flag that the help of a command names can be completed", () => {
  const all = new Map(completables(commands).map((each) => [each.name, each]));
  for (const command of commands) {
    const offered = new Set(all.get(command.name)!.flags.map(({ name }) => name));
    const help = helpText(command.name, command.page);
    const inHelp = [...help.matchAll(/^ {2}(--[a-z-]+)/gm)].map(([, name]) => name!);
    for (const name of inHelp) assert.ok(offered.has(name), `${command.name} ${name}`);
  }
});

test("a shell that is not known, or none: exit 2", async () => {
  const completions = commands.find(({ name }) => name === "completions")!;
  const { error } = console;
  const said: string[] = [];
  console.error = (line: string) => void said.push(line);
  try {
    for (const argv of [["tcsh"], ["bash", "zsh"], []]) {
      assert.equal(await completions.run(argv), 2);
    }
  } finally {
    console.error = error;
  }
  const [expected, help] = ["expected bash, zsh or fish", "see shishi completions --help"];
  assert.deepEqual(
    said,
    ['"tcsh"', '"bash zsh"', "nothing"].map((found) =>
      `shishi: completions: ${expected}, got ${found}; ${help}`
    ),
  );
});
