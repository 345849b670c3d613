/** `shishi status|flush|pause|resume|stop`: the settings they take, and their help. */

import process from "node:process";
import type { Command } from "../contracts.ts";
import { systemClock } from "../runtime/clock.ts";
import { helpText } from "../settings/help.ts";
import { boolean, duration, text } from "../settings/kinds.ts";
import type { SettingName } from "../settings/settings.ts";
import { section, setting } from "../settings/spec.ts";
import type { CliCommand } from "./command.ts";
import { settingsOrExitCode } from "./load.ts";
import { runRemote, WAITING_HELP } from "./remote.ts";

const SUMMARY: Readonly<Record<Command, string>> = {
  status: "show state and counts of running collectors",
  flush: "make running collectors send at once what they hold",
  pause: "make running collectors refuse new events (503); what they hold is still delivered",
  resume: "make paused collectors take events again",
  stop: "stop running collectors: each delivers what it holds, then ends",
};

const EXIT_CODES = "Exit code 0 when at least one collector answered and all that answered have " +
  "obeyed to the end, 1 otherwise, 2 when the settings are unusable.";

const ONLY: readonly SettingName[] = [
  "nats-url",
  "nats-subject",
  "nats-creds",
  "nats-nkey",
  "nats-user",
  "nats-password",
  "nats-token",
];

const EXTRA = section("Command", [
  setting({
    name: "target",
    kind: text("TARGET", "all, GROUP or GROUP.ID"),
    default: "all",
    meaning: "which collectors: all, GROUP or GROUP.ID",
  }),
  setting({
    name: "timeout",
    kind: duration({ min: 100, max: 24 * 3600 * 1000 }),
    default: "30s",
    meaning: "how long to wait altogether",
  }),
  setting({
    name: "json",
    kind: boolean,
    default: "false",
    meaning: "one line of JSON an answer",
  }),
]);

/** The five commands; `command` is also the last word of the subject that it is sent on. */
export function controlCommand(command: Command): CliCommand {
  const usage = `shishi ${command} [--target all|GROUP|GROUP.ID] [--timeout DURATION] ...`;
  const [first = "", ...rest] = SUMMARY[command];
  const about = `${first.toUpperCase()}${rest.join("")}.\n${WAITING_HELP}\n${EXIT_CODES}`;
  return {
    name: command,
    summary: SUMMARY[command],
    help: () => helpText(command, { usage, about, only: ONLY, extra: EXTRA }),
    async run(argv) {
      const loaded = settingsOrExitCode(argv, { command, only: ONLY, extra: EXTRA });
      if (typeof loaded === "number") return loaded;
      const { settings, extra } = loaded;
      if (settings.nats === null) {
        console.error(
          "shishi: nats-url: expected the ws:// or wss:// address of a NATS server, got none " +
            "(--nats-url or SHISHI_NATS_URL)",
        );
        return 2;
      }
      return await runRemote(command, {
        ...settings.nats,
        target: extra.target,
        timeoutMs: extra.timeout,
        json: extra.json,
        clock: systemClock,
        color: process.stdout.isTTY === true,
        out: (line) => console.log(line),
        err: (line) => console.error(`shishi: ${line}`),
      });
    },
  };
}
