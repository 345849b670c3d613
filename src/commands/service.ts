/** `shishi service print`: the systemd unit for this program and these settings, on stdout. */

import { TABLE } from "../settings/table.ts";
import type { CliCommand } from "./command.ts";
import { operandOf } from "./operand.ts";
import { EXTRA } from "./service_flags.ts";

const USAGE = "shishi service print [--user NAME] [--program PATH] [--SETTING VALUE ...]";
const ABOUT =
  "Writes a systemd unit for this program and these settings: readiness, watchdog, a sandbox. Secrets " +
  "are not pasted: each becomes a credential, a file that systemd hands over. Data lies in " +
  "/var/lib/shishi.\n" +
  "shishi service print --config /etc/shishi/shishi.toml > /etc/systemd/system/shishi.service\n" +
  "systemctl daemon-reload && systemctl enable --now shishi";

export const service: CliCommand = {
  name: "service",
  summary: "print a systemd unit for this program and these settings",
  page: { usage: USAGE, about: ABOUT, words: ["print"], extra: EXTRA },
  async run(argv) {
    const { operand: verb, rest } = operandOf(argv, [...EXTRA, ...TABLE]);
    // Not above, or every command would wait for what is loaded with it.
    if (verb === "print") return (await import("./service_print.ts")).print(rest);
    const found = verb === null ? "nothing" : JSON.stringify(verb.slice(0, 64));
    console.error(`shishi: service: expected print, got ${found}; see shishi service --help`);
    return 2;
  },
};
