/**
 * `shishi completions bash|zsh|fish`: prints what teaches a shell to complete `shishi`. What can be
 * completed is read from the settings table and the commands' own flags, so that a new setting needs
 * nothing here.
 */

import { settingsOf } from "../settings/help.ts";
import { namesOf, type SettingSpec } from "../settings/spec.ts";
import type { CliCommand } from "./cli.ts";
import {
  type Completable,
  type Flag,
  scriptFor,
  type Shell,
  SHELLS,
  type Values,
} from "./shells.ts";

const ABOUT = `Prints what teaches that shell to complete commands, flags and values. Once for all:

  bash  shishi completions bash > /etc/bash_completion.d/shishi
        (without root: ~/.local/share/bash-completion/completions/shishi)
  zsh   shishi completions zsh > /usr/local/share/zsh/site-functions/_shishi
        (without root: _shishi in any folder of $fpath, before compinit)
  fish  shishi completions fish > ~/.config/fish/completions/shishi.fish

For this shell alone: source <(shishi completions bash), the same in zsh, and in fish
shishi completions fish | source. Exit code 0, or 2 for a shell that is not known.`;

/** @param all every command, this one among them. */
export function completionsCommand(all: () => Promise<readonly CliCommand[]>): CliCommand {
  return {
    name: "completions",
    summary: "print the completions for bash, zsh or fish",
    page: { usage: "shishi completions bash|zsh|fish", about: ABOUT, words: SHELLS, only: [] },
    async run(argv) {
      const [shell, ...more] = argv;
      const known = SHELLS.find((name) => name === shell);
      if (known === undefined || more.length > 0) {
        const found = shell === undefined ? "nothing" : JSON.stringify(argv.join(" ").slice(0, 64));
        console.error(
          `shishi: completions: expected bash, zsh or fish, got ${found}; see shishi completions --help`,
        );
        return 2;
      }
      console.log(completionsFor(known, await all()));
      return 0;
    },
  };
}

/** A script without a newline at its end. */
export function completionsFor(shell: Shell, commands: readonly CliCommand[]): string {
  return scriptFor(shell, completables(commands));
}

const HELP: Flag = { name: "--help", meaning: "what the command takes", values: "none" };

/** Every command, and `help`, which takes the name of one. */
export function completables(commands: readonly CliCommand[]): Completable[] {
  const all = commands.map(({ name, summary, page }) => {
    const { extra = [], words = [], files = false } = page;
    const flags = [...extra, ...settingsOf(page)].flatMap(flagsOf);
    return { name, summary, words, files, flags: [...flags, HELP] };
  });
  const names = all.map(({ name }) => name);
  return [...all, {
    name: "help",
    summary: "what a command takes",
    words: names,
    files: false,
    flags: [],
  }];
}

/** A setting's flag, its other names and, for a secret, its `-file` form. */
function flagsOf(spec: SettingSpec): Flag[] {
  const meaning = short(spec.meaning);
  const flags = [...namesOf([spec])].map(([name, { file }]): Flag => ({
    name: `--${name}`,
    meaning: file ? `a file that holds ${spec.name}` : meaning,
    values: file ? "file" : valuesOf(spec),
  }));
  if (spec.kind.file === "boolean" && spec.default === "true") {
    flags.push({ name: `--no-${spec.name}`, meaning: `not: ${meaning}`, values: "none" });
  }
  return flags;
}

/** The placeholder tells: capitals stand for a value, small letters are one. */
function valuesOf({ kind: { placeholder, file } }: SettingSpec): Values {
  if (file === "boolean") return "none";
  if (placeholder === "FILE") return "file";
  if (placeholder === "FOLDER") return "folder";
  const words = placeholder.split("|").filter((word) => /^[a-z]+$/.test(word));
  return words.length > 0 ? words : "any";
}

/** The first clause: a shell cuts it to the width of its terminal. */
function short(meaning: string): string {
  const [clause = ""] = meaning.split(/; | \(/);
  return clause;
}
