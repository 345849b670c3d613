/**
 * Completions for bash, 3.2 (macOS) and later, without the package bash-completion. There `--ack=disk`
 * comes as three words, or as one where somebody has taken `=` out of COMP_WORDBREAKS.
 */

import { type Completable, TOP_FLAGS, type Values } from "./model.ts";

export function bashCompletions(commands: readonly Completable[]): string {
  const words = (list: readonly { readonly name: string }[]) =>
    list.map(({ name }) => name).join(" ");
  const byCommand = commands.map(({ name, words: first, flags }) =>
    `    ${name}) words="${first.join(" ")}" flags="${words(flags)}" ;;`
  );
  return `# Completions of shishi for bash: source <(shishi completions bash)
_shishi() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]} before= command=serve
  local words= flags= at=1 IFS=$' \\t\\n'
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
${valueCases(commands)}
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
function valueCases(commands: readonly Completable[]): string {
  const flagsBy = new Map<string, Set<string>>();
  for (const { name, values } of commands.flatMap(({ flags }) => flags)) {
    const what = answerTo(values);
    if (what !== null) flagsBy.set(what, (flagsBy.get(what) ?? new Set()).add(name));
  }
  return [...flagsBy].map(([what, flags]) => `    ${[...flags].join("|")}) ${what} ;;`).join("\n");
}

function answerTo(values: Values): string | null {
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
