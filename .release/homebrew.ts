/** The Homebrew formula: for each Mac and Linux that there is an archive for, where it lies and its hash. */

import { HOMEPAGE } from "./homepage.ts";
import type { Target } from "./targets.ts";

export interface Packed {
  readonly target: Target;
  /** Name of the archive. */
  readonly file: string;
  /** In hexadecimal. */
  readonly sha256: string;
}

/** Homebrew has no word for musl: those archives are not for it. */
const SYSTEMS = { darwin: "macos", linux: "linux" } as const;
const MACHINES = { arm64: "arm", x64: "intel" } as const;

/** @param url of the folder in which the archives lie. */
export function formula(version: string, packed: readonly Packed[], url: string): string {
  const blocks = Object.entries(SYSTEMS).flatMap(([system, name]) => {
    const machines = Object.entries(MACHINES).flatMap(([machine, name]) => {
      const found = packed.find(({ target }) => target.name === `${system}-${machine}`);
      return found === undefined ? [] : [
        `    on_${name} do`,
        `      url "${url}/${found.file}"`,
        `      sha256 "${found.sha256}"`,
        "    end",
      ];
    });
    return machines.length === 0 ? [] : [`  on_${name} do`, ...machines, "  end", ""];
  });
  return `class Shishi < Formula
  desc "Edge collector for ClickHouse"
  homepage "${HOMEPAGE}"
  version "${version}"
  license "MIT"

${blocks.join("\n")}
  def install
    bin.install "shishi"
    man1.install "shishi.1"
    bash_completion.install "completions/shishi"
    zsh_completion.install "completions/_shishi"
    fish_completion.install "completions/shishi.fish"
    pkgshare.install "shishi.toml", "monitoring"
    doc.install Dir["*.md"], "docs", "NOTICES"
  end

  service do
    run [opt_bin/"shishi", "serve"]
    environment_variables SHISHI_DATA_DIR: var/"shishi"
    keep_alive true
    error_log_path var/"log/shishi.log"
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/shishi --version")
  end
end
`;
}
