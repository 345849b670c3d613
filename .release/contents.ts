/** What stands in an archive beside the binary. */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { allCommands } from "../src/commands/all.ts";
import { completionsFor } from "../src/commands/completions.ts";
import { unitText } from "../src/systemd/unit.ts";
import { exampleToml } from "./example.ts";
import { manual } from "./manual.ts";
import type { Stamp } from "./stamp.ts";
import { isLinux, isWindows, type Target } from "./targets.ts";

/** Path in the archive → text. */
export type Texts = Readonly<Record<string, string>>;

/** For Prometheus and Grafana; tried where they lie in the source. */
export const MONITORING: readonly string[] = ["alerts.yaml", "influxdb.json", "prometheus.json"];

/** @param notices the text of NOTICES. */
export async function textsFor(
  target: Target,
  { root, stamp, notices }: {
    readonly root: string;
    readonly stamp: Stamp;
    readonly notices: string;
  },
): Promise<Texts> {
  const file = (name: string) => readFileSync(join(root, name), "utf8");
  return {
    "README.md": file("README.md"),
    ...Object.fromEntries(pages(root).map((name) => [name, file(name)])),
    "CHANGELOG.md": file("CHANGELOG.md"),
    "LICENSE": file("LICENSE"),
    "NOTICES": notices,
    "shishi.toml": exampleToml(),
    ...Object.fromEntries(
      MONITORING.map((name) => [`monitoring/${name}`, file(`test/grafana/${name}`)]),
    ),
    ...(isLinux(target) ? { "shishi.service": unit() } : {}),
    ...(isWindows(target) ? {} : { "shishi.1": await manual(stamp), ...await completions() }),
  };
}

/** What the README links to. */
function pages(root: string): string[] {
  const docs = readdirSync(join(root, "docs")).filter((name) => name.endsWith(".md"));
  return ["CONTRIBUTING.md", ...docs.map((name) => `docs/${name}`)].sort();
}

/** What `shishi service print --config /etc/shishi/shishi.toml` prints where docs/operations.md installs it. */
function unit(): string {
  return unitText({
    command: ["/usr/local/bin/shishi", "serve", "--config=/etc/shishi/shishi.toml"],
    credentials: [],
    state: { name: "shishi" },
    user: null,
    shutdownTimeoutMs: 10_000,
    drainDelayMs: 0,
    privilegedPort: false,
    remarks: [
      "Put the binary into /usr/local/bin, shishi.toml into /etc/shishi and this file into",
      "/etc/systemd/system, then: systemctl daemon-reload && systemctl enable --now shishi",
      "For other paths and settings: shishi service print",
    ],
  });
}

/** Under the names by which the shells look for them. */
async function completions(): Promise<Texts> {
  const commands = await allCommands();
  const text = (shell: Parameters<typeof completionsFor>[0]) =>
    `${completionsFor(shell, commands)}\n`;
  return {
    "completions/shishi": text("bash"),
    "completions/_shishi": text("zsh"),
    "completions/shishi.fish": text("fish"),
  };
}
