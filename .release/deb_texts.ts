/** What stands in the Debian package beside the binary, made from the source like everything else. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { allCommands } from "../src/commands/all.ts";
import { completionsFor } from "../src/commands/completions.ts";
import { unitText } from "../src/systemd/unit.ts";
import type { DebTexts } from "./deb.ts";
import { exampleToml } from "./example.ts";
import { manual } from "./manual.ts";
import type { Stamp } from "./stamp.ts";

/** Of shutdown-timeout's default; who sets a longer one says so in a drop-in. */
const SHUTDOWN_TIMEOUT_MS = 10_000;

/** @param notices the text of NOTICES. */
export async function debTexts(root: string, stamp: Stamp, notices: string): Promise<DebTexts> {
  const file = (name: string) => readFileSync(join(root, name), "utf8");
  const known = await allCommands();
  return {
    // What `shishi service print --user shishi --config /etc/shishi/shishi.toml` prints on that host.
    unit: unitText({
      command: ["/usr/bin/shishi", "serve", "--config=/etc/shishi/shishi.toml"],
      credentials: [],
      state: { name: "shishi" },
      user: "shishi",
      shutdownTimeoutMs: SHUTDOWN_TIMEOUT_MS,
      drainDelayMs: 0,
      privilegedPort: false,
      remarks: ["Changes belong into /etc/systemd/system/shishi.service.d: systemctl edit shishi"],
    }),
    settings: exampleToml(),
    manual: await manual(stamp),
    changelog: file("CHANGELOG.md"),
    // The packages' licences are whole in NOTICES; Debian has some of them in a place of their own.
    copyright: `${file("LICENSE")}
The program holds work of others: whose, and under which licences, stands in
/usr/share/doc/shishi-collector/NOTICES.gz.
`,
    notices,
    completions: {
      bash: `${completionsFor("bash", known)}\n`,
      zsh: `${completionsFor("zsh", known)}\n`,
      fish: `${completionsFor("fish", known)}\n`,
    },
  };
}
