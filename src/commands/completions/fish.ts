/** Completions for fish, which shows what each flag means beside it. */

import { type Completable, type Flag, TOP_FLAGS } from "./model.ts";

export function fishCompletions(commands: readonly Completable[]): string {
  const lines = commands.map(({ name, summary }) =>
    `complete -c shishi -n __shishi_first -a ${name} -d ${quoted(summary)}`
  );
  for (const flag of TOP_FLAGS) lines.push(lineOf(flag, "__shishi_first"));
  for (const { name, words } of commands) {
    if (words.length === 0) continue;
    lines.push(`complete -c shishi -n '__shishi_second ${name}' -a ${quoted(words.join(" "))}`);
  }
  for (const [flag, names] of byFlag(commands)) {
    lines.push(lineOf(flag, `__shishi_is ${names.join(" ")}`));
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
function byFlag(commands: readonly Completable[]): [Flag, string[]][] {
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

function lineOf({ name, meaning, values }: Flag, condition: string): string {
  const line = `complete -c shishi -n ${quoted(condition)} -l ${name.slice(2)} -d ${
    quoted(meaning)
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
      return `${line} -x -a ${quoted(values.join(" "))}`;
  }
}

function quoted(text: string): string {
  return `'${text.replace(/[\\']/g, "\\$&")}'`;
}
