/** What stands in the Debian package beside the binary, made from the source like everything else. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { DebTexts } from "./deb.ts";
import { exampleToml } from "./example.ts";
import { manual } from "./manual.ts";
import type { Stamp } from "./stamp.ts";

/** @param notices the text of NOTICES. */
export async function debTexts(root: string, stamp: Stamp, notices: string): Promise<DebTexts> {
  const file = (name: string) => readFileSync(join(root, name), "utf8");
  return {
    unit:
      "[Unit]\nDescription=Shishi\nDocumentation=man:shishi(1)\n\n[Service]\nUser=shishi\nExecStart=/usr/bin/shishi serve --config=/etc/shishi/shishi.toml\nStateDirectory=shishi\n\n[Install]\nWantedBy=multi-user.target\n",
    settings: exampleToml(),
    manual: await manual(stamp),
    changelog: file("CHANGELOG.md"),
    copyright: `${file("LICENSE")}\n${notices}`,
    completions: {
      bash: "complete -W serve shishi\n",
      zsh: "#compdef shishi\n",
      fish: "complete -c shishi\n",
    },
  };
}
