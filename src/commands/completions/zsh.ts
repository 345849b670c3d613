/** Completions for zsh: a function of the completion system, to be autoloaded or sourced. */

import { type Completable, type Flag, TOP_FLAGS } from "./model.ts";

export function zshCompletions(commands: readonly Completable[]): string {
  const list = commands.map(({ name, summary }) =>
    `    ${quoted(`${name}:${summary.replaceAll(":", "\\:")}`)}`
  );
  const cases = commands.map((command) => {
    const specs = [
      ...command.flags.map(specOf),
      ...(command.name === "serve" ? TOP_FLAGS.slice(1).map(specOf) : []),
      ...(command.words.length > 0 ? [`1:word:(${command.words.join(" ")})`] : []),
    ].map((spec) => `        ${quoted(spec)}`);
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
function specOf({ name, meaning, values }: Flag): string {
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

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
