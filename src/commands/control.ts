/** `shishi status|flush|pause|resume|stop`: the settings they take, their help, and their terminal. */

import process from "node:process";
import type { Command } from "../contracts.ts";
import { systemClock } from "../runtime/clock.ts";
import { wantsColor } from "../runtime/color.ts";
import { onStopSignal } from "../runtime/signals.ts";
import type { SettingName } from "../settings/settings.ts";
import { NATS } from "../settings/table_nats.ts";
import type { CliCommand } from "./command.ts";
import { confirmOnTerminal } from "./confirm.ts";
import { type ControlFlags, controlFlags } from "./control_flags.ts";
import { settingsOrExitCode } from "./load.ts";
import { runRemote } from "../fleet/remote.ts";

const SUMMARY: Readonly<Record<Command, string>> = {
  status: "show state and counts of running collectors",
  flush: "make running collectors send at once what they hold",
  pause: "make running collectors refuse new events (503); what they hold is still delivered",
  resume: "make paused collectors take events again",
  stop: "stop running collectors: each delivers what it holds, then ends",
};

const WAITING =
  "The command travels over NATS; without --target every collector obeys. Waits for answers until 2 s have passed without a further collector answering (one named as " +
  "GROUP.ID: 250 ms), and for those that took a stop or flush until they are done, but never longer " +
  "than --timeout.";
const EXIT_CODES = "Exit code 0 when at least one collector answered and all that answered have " +
  "obeyed to the end, 1 otherwise, 2 when the settings are unusable.";

const MORE: Readonly<Partial<Record<Command, string>>> = {
  status:
    "One line a collector, sorted by group and id: rows held, age of the oldest of them, rows " +
    "stored, dead and lost since it started, version and uptime. --watch ends with 0 at Ctrl-C and " +
    "waits for a NATS that goes away; who no longer answers is shown as silent.",
  stop:
    "Stops all at once unless --batch says how many at a time: shishi stop --target eu --batch 5 " +
    "--wait 30s. A roll asks the target for its status, then stops each collector by its own name; " +
    "whatever goes wrong with one of a batch ends the roll after that batch, with exit code 1 and the " +
    "names of those that were not told to stop. Ctrl-C ends the waiting, not the stopping of those " +
    "that were told.",
};

const ONLY: readonly SettingName[] = NATS.map(({ name }) => name);

/** The five commands; `command` is also the last word of the subject that it is sent on. */
export function controlCommand(command: Command): CliCommand {
  const usage = `shishi ${command} [--target all|GROUP|GROUP.ID] [--timeout DURATION] ...`;
  const [first = "", ...rest] = SUMMARY[command];
  const about = [`${first.toUpperCase()}${rest.join("")}.`, MORE[command], WAITING, EXIT_CODES]
    .filter((text) => text !== undefined).join("\n");
  const extra = controlFlags(command);
  return {
    name: command,
    summary: SUMMARY[command],
    page: { usage, about, only: ONLY, extra },
    async run(argv) {
      const loaded = settingsOrExitCode(argv, { command, only: ONLY, extra });
      if (typeof loaded === "number") return loaded;
      // The flags are the command's own; the compiler knows only that they are some.
      const flags = loaded.extra as unknown as ControlFlags;
      const problem = loaded.settings.nats === null
        ? "nats-url: expected the ws:// or wss:// address of a NATS server, got none (--nats-url or " +
          "SHISHI_NATS_URL)"
        : (flags.wait ?? 0) > 0 && (flags.batch ?? null) === null
        ? "--wait: expected --batch beside it, got a stop of all at once"
        : null;
      if (loaded.settings.nats === null || problem !== null) {
        console.error(`shishi: ${problem}`);
        return 2;
      }
      return await run(command, loaded.settings.nats, flags);
    },
  };
}

type Nats = Pick<
  Parameters<typeof runRemote>[1],
  "servers" | "auth" | "subject" | "controlSecret"
>;

/** With everything that the terminal, if there is one, and signals have to say. */
async function run(command: Command, nats: Nats, flags: ControlFlags): Promise<number> {
  const { target, timeout, json, yes, batch, wait } = flags;
  const terminal = process.stdout.isTTY === true;
  const interrupted = new AbortController();
  const forget = onStopSignal(() => interrupted.abort());
  // `shishi status --watch | head`: only a stream tells that the reader has gone, and only console.log
  // has written everything when the process ends.
  process.stdout.on("error", () => interrupted.abort());
  const out = flags.watch
    ? (line: string) => void process.stdout.write(`${line}\n`)
    : (line: string) => console.log(line);
  try {
    return await runRemote(command, {
      ...nats,
      target,
      timeoutMs: timeout,
      json,
      watch: flags.watch ?? false,
      dryRun: flags["dry-run"] ?? false,
      roll: batch === undefined || batch === null ? null : { size: batch, pauseMs: wait ?? 0 },
      confirm: yes ? null : confirmOnTerminal(interrupted.signal),
      clock: systemClock,
      color: wantsColor(terminal),
      // A terminal that does not tell its size says 0.
      screen: terminal ? { rows: () => process.stdout.rows || 24 } : null,
      out,
      err: (line) => console.error(`shishi: ${line}`),
      signal: interrupted.signal,
    });
  } finally {
    forget();
  }
}
