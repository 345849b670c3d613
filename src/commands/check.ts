/**
 * `shishi check`: are the settings usable, and is everything that they name fit for work? One line
 * each, with what to do where something is wrong. Changes nothing anywhere. What it needs is loaded
 * when it runs: other commands must not wait for it.
 */

import { boolean } from "../settings/kinds.ts";
import { section, setting } from "../settings/spec.ts";
import type { CliCommand } from "./cli.ts";

const ABOUT = "Validates the settings and looks at all that they name, one line each: ✓ well, ! " +
  "works but may hurt, ✗ wrong, with what to do. Servers: reachable, version, rights, tables and their " +
  "columns, deduplication, clock. This host: data-dir, lock, disk, open files, port, certificate. " +
  "Changes nothing. Exit code 0 when nothing is wrong, 1 when something is, 2 when the settings are " +
  "unusable.";

const EXTRA = section("Command", [
  setting({
    name: "json",
    kind: boolean,
    default: "false",
    meaning: "one line of JSON for each finding: check, state (ok, warning, wrong), text, todo",
  }),
]);

export const check: CliCommand = {
  name: "check",
  summary: "validate the settings, look at every server and at this host",
  page: { about: ABOUT, extra: EXTRA },
  async run(argv) {
    const { runCheck } = await import("./check/run.ts");
    return await runCheck(argv, EXTRA);
  },
};
