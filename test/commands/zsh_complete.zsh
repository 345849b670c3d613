# zsh -f zsh_complete.zsh COMPLETIONS LINE...: prints what an interactive zsh offers for the end of each
# line: "line:N", then "match:…" for each. The completion system works only there, so one runs on a
# pseudo terminal, and a hook around compadd tells what it is given.
zmodload zsh/zpty
zpty z zsh -f -i
local text setup=$(mktemp) at=0
cat > $setup <<'SETUP'
PROMPT= LISTMAX=100000
stty -echo
autoload -Uz compinit
compinit -u -D
bindkey '^I' complete-word
bindkey '^U' kill-whole-line
tell () { print; print -r -- end-of-matches; comppostfuncs=( tell ) }
comppostfuncs=( tell )
zstyle ':completion:*' insert-tab false
compadd () {
  # -O, -A and -D only store what matches.
  if [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]]; then
    builtin compadd "$@"
    return
  fi
  typeset -a hits_of_ours
  builtin compadd -A hits_of_ours "$@"
  (( $#hits_of_ours )) && print && print -rl -- match:${^hits_of_ours}
  builtin compadd "$@"
}
SETUP
print -r -- "source ${(q)1}; print ready" >> $setup
shift
zpty -w z "source $setup"
while zpty -r z text; do [[ $text == ready* ]] && break; done
for line; do
  print -r -- line:$((++at))
  zpty -n -w z $'\C-u'$line$'\t'
  while zpty -r z text; do
    print -r -- ${text//$'\r'/$'\n'}
    [[ $text == *end-of-matches* ]] && break
  done
done
zpty -d z
rm -f $setup
