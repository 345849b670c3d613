/**
 * `shishi completions bash|zsh|fish`: prints what teaches a shell to complete `shishi`. What can be
 * completed is read from the settings table and the commands' own flags, so that a new setting needs
 * nothing here. A script holds everything: completing a word asks no process.
 */

import { settingsOf } from "../settings/help.ts";
import { namesOf, type SettingSpec } from "../settings/spec.ts";
import type { CliCommand } from "./cli.ts";

/** What follows a flag: nothing, one of some words, a file, a folder, or what only the user knows. */
type Values = readonly string[] | "none" | "file" | "folder" | "any";

interface Flag {
  /** With its dashes. */
  readonly name: string;
  /** A few words. */
  readonly meaning: string;
  readonly values: Values;
}

interface Completable {
  readonly name: string;
  readonly summary: string;
  /** One of them comes first. */
  readonly words: readonly string[];
  /** Words that are no flags name files. */
  readonly files: boolean;
  readonly flags: readonly Flag[];
}

/** What may follow `shishi` itself. */
const TOP_FLAGS: readonly Flag[] = [
  { name: "--help", meaning: "the commands", values: "none" },
  { name: "--version", meaning: "version and runtime", values: "none" },
];

const WRITERS = { bash: bashCompletions, zsh: zshCompletions, fish: fishCompletions } as const;
type Shell = keyof typeof WRITERS;
const SHELLS = ["bash", "zsh", "fish"] as const satisfies readonly Shell[];

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
  return WRITERS[shell](completables(commands));
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

// ── The scripts.

/**
 * For bash 3.2 (macOS) and later, without the package bash-completion. There `--ack=disk` comes as three
 * words, or as one where `=` was taken out of COMP_WORDBREAKS.
 */
function bashCompletions(commands: readonly Completable[]): string {
  const words = (list: readonly { readonly name: string }[]) =>
    list.map(({ name }) => name).join(" ");
  const byCommand = commands.map(({ name, words: first, files, flags }) =>
    `    ${name}) words="${first.join(" ")}" ${files ? "files=1 " : ""}flags="${words(flags)}" ;;`
  );
  return `# Completions of shishi for bash: source <(shishi completions bash)
_shishi() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]} before= command=serve
  local words= files= flags= at=1 IFS=$' \\t\\n'
  COMPREPLY=()
  if [[ $cur == = ]]; then
    cur=
  elif [[ $prev == = ]]; then
    prev=\${COMP_WORDS[COMP_CWORD-2]}
  elif [[ $cur == --*=* ]]; then
    before=\${cur%%=*}= prev=\${cur%%=*} cur=\${cur#*=}
  fi
  if [[ COMP_CWORD -gt 1 && \${COMP_WORDS[1]} != -* ]]; then
    command=\${COMP_WORDS[1]} at=2
  fi
  case $prev in
${bashValueCases(commands)}
  esac
  case $command in
${byCommand.join("\n")}
    *) return ;;
  esac
  if [[ $cur == -* ]]; then
    [[ COMP_CWORD -eq 1 ]] && flags="$flags ${words(TOP_FLAGS)}"
    COMPREPLY=($(compgen -W "$flags" -- "$cur"))
  elif [[ COMP_CWORD -eq 1 ]]; then
    COMPREPLY=($(compgen -W "${words(commands)}" -- "$cur"))
  elif [[ $files ]]; then
    _shishi_paths -f
  elif [[ COMP_CWORD -eq at ]]; then
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
  fi
}
_shishi_words() {
  COMPREPLY=($(compgen -P "$before" -W "$1" -- "$cur"))
}
_shishi_paths() {
  local IFS=$'\\n'
  compopt -o filenames 2>/dev/null
  COMPREPLY=($(compgen -P "$before" "$1" -- "$cur"))
}
complete -F _shishi shishi`;
}

/** What stands behind a flag; a flag means the same to every command. */
function bashValueCases(commands: readonly Completable[]): string {
  const flagsBy = new Map<string, Set<string>>();
  for (const { name, values } of commands.flatMap(({ flags }) => flags)) {
    const what = bashValues(values);
    if (what !== null) flagsBy.set(what, (flagsBy.get(what) ?? new Set()).add(name));
  }
  return [...flagsBy].map(([what, flags]) => `    ${[...flags].join("|")}) ${what} ;;`).join("\n");
}

function bashValues(values: Values): string | null {
  switch (values) {
    case "none":
      return null;
    case "any":
      return "return";
    case "file":
      return "_shishi_paths -f; return";
    case "folder":
      return "_shishi_paths -d; return";
    default:
      return `_shishi_words "${values.join(" ")}"; return`;
  }
}

/** For zsh: a function of the completion system, to be autoloaded or sourced. */
function zshCompletions(commands: readonly Completable[]): string {
  const list = commands.map(({ name, summary }) =>
    `    ${zshQuoted(`${name}:${summary.replaceAll(":", "\\:")}`)}`
  );
  const cases = commands.map((command) => {
    const specs = [
      ...command.flags.map(zshSpec),
      ...(command.name === "serve" ? TOP_FLAGS.slice(1).map(zshSpec) : []),
      ...(command.words.length > 0 ? [`1:word:(${command.words.join(" ")})`] : []),
      ...(command.files ? ["*:file:_files"] : []),
    ].map((spec) => `        ${zshQuoted(spec)}`);
    return `    ${command.name})\n      _arguments \\\n${specs.join(" \\\n")}\n      ;;`;
  });
  return `#compdef shishi
# Completions of shishi for zsh: source <(shishi completions zsh), or as _shishi in a folder of $fpath
_shishi() {
  local command=serve
  local -a commands=(
${list.join("\n")}
  )
  if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then
    _describe -t commands command commands
    return
  fi
  if [[ $words[2] != -* ]]; then
    command=$words[2]
    shift words
    (( CURRENT-- ))
  fi
  case $command in
${cases.join("\n")}
  esac
}
if [[ $funcstack[1] == _shishi ]]; then _shishi "$@"; else compdef _shishi shishi; fi`;
}

/** `--ack=[when a write is answered]:value:(memory disk clickhouse)`. */
function zshSpec({ name, meaning, values }: Flag): string {
  const about = `[${meaning.replace(/[[\]\\]/g, "\\$&")}]`;
  switch (values) {
    case "none":
      return name + about;
    case "any":
      return `${name}=${about}:value: `;
    case "file":
      return `${name}=${about}:file:_files`;
    case "folder":
      return `${name}=${about}:folder:_files -/`;
    default:
      return `${name}=${about}:value:(${values.join(" ")})`;
  }
}

function zshQuoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** For fish, which shows what each flag means beside it. */
function fishCompletions(commands: readonly Completable[]): string {
  const lines = commands.map(({ name, summary }) =>
    `complete -c shishi -n __shishi_first -a ${name} -d ${fishQuoted(summary)}`
  );
  for (const flag of TOP_FLAGS) lines.push(fishLine(flag, "__shishi_first"));
  for (const { name, words } of commands) {
    if (words.length === 0) continue;
    lines.push(`complete -c shishi -n '__shishi_second ${name}' -a ${fishQuoted(words.join(" "))}`);
  }
  for (const { name, files } of commands) {
    if (files) lines.push(`complete -c shishi -n '__shishi_is ${name}' -F`);
  }
  for (const [flag, names] of commandsByFlag(commands)) {
    lines.push(fishLine(flag, `__shishi_is ${names.join(" ")}`));
  }
  return `# Completions of shishi for fish: shishi completions fish | source
function __shishi_command
    set -l words (commandline -opc)
    if set -q words[2]; and not string match -q -- '-*' $words[2]
        echo $words[2]
    else
        echo serve
    end
end
function __shishi_is
    contains -- (__shishi_command) $argv
end
function __shishi_first
    test (count (commandline -opc)) -eq 1
end
function __shishi_second
    test (count (commandline -opc)) -eq 2; and __shishi_is $argv
end
complete -c shishi -f
${lines.join("\n")}`;
}

/** Each flag once, with the commands that have it. */
function commandsByFlag(commands: readonly Completable[]): [Flag, string[]][] {
  const found = new Map<string, [Flag, string[]]>();
  for (const { name, flags } of commands) {
    for (const flag of flags) {
      const key = JSON.stringify(flag);
      const [, names] = found.get(key) ?? found.set(key, [flag, []]).get(key)!;
      names.push(name);
    }
  }
  return [...found.values()];
}

function fishLine({ name, meaning, values }: Flag, condition: string): string {
  const line = `complete -c shishi -n ${fishQuoted(condition)} -l ${name.slice(2)} -d ${
    fishQuoted(meaning)
  }`;
  switch (values) {
    case "none":
      return line;
    case "any":
      return `${line} -x`;
    case "file":
      return `${line} -r -F`;
    case "folder":
      return `${line} -x -a '(__fish_complete_directories)'`;
    default:
      return `${line} -x -a ${fishQuoted(values.join(" "))}`;
  }
}

function fishQuoted(text: string): string {
  return `'${text.replace(/[\\']/g, "\\$&")}'`;
}
