/** `shishi completions bash|zsh|fish`: prints what teaches a shell to complete `shishi`. */

import type { CliCommand } from "./command.ts";

const SHELLS = ["bash", "zsh", "fish"] as const;

const ABOUT = `Prints what teaches that shell to complete commands, flags and values. Once for all:

  bash  shishi completions bash > /etc/bash_completion.d/shishi
        (without root: ~/.local/share/bash-completion/completions/shishi)
  zsh   shishi completions zsh > /usr/local/share/zsh/site-functions/_shishi
        (without root: _shishi in any folder of $fpath, before compinit)
  fish  shishi completions fish > ~/.config/fish/completions/shishi.fish

For this shell alone: source <(shishi completions bash), the same in zsh, and in fish
shishi completions fish | source. Exit code 0, or 2 for a shell that is not known.`;

export const completions: CliCommand = {
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
    const { completionsFor } = await import("./completions/shells.ts");
    const { allCommands } = await import("./all.ts");
    console.log(completionsFor(known, await allCommands()));
    return 0;
  },
};
