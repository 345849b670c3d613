/**
 * `shishi status|flush|pause|resume|stop`: five commands in one file, since they differ in a word of the
 * subject, in a few flags and in their help alone. What they do is fleet/.
 */

import process from "node:process";
import type { Command, ExitAddress } from "../contracts.ts";
import { reasonOf } from "../kernel/errors.ts";
import { controlFleet } from "../fleet/fleet.ts";
import { authorities } from "../runtime/authorities.ts";
import { systemClock } from "../kernel/time.ts";
import { onStopSignal, wantsColor } from "../runtime/host.ts";
import { createOpenSocket } from "../runtime/socket.ts";
import { boolean, count, duration, text } from "../settings/kinds.ts";
import type { SettingName, Settings, SettingSpec } from "../settings/settings.ts";
import { exitUrls } from "../settings/source_urls.ts";
import { type Kind, section, setting, type ValuesOf } from "../settings/spec.ts";
import { NATS } from "../settings/table.ts";
import { type CliCommand, confirmOnTerminal, settingsOrExitCode } from "./cli.ts";

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
    "waits for a NATS that goes away; a collector that no longer answers is shown as silent.",
  stop:
    "Stops all at once unless --batch says how many at a time: shishi stop --target eu --batch 5 " +
    "--wait 30s. A rolling stop asks the target for its status, then stops each collector by its own name; " +
    "whatever goes wrong with one of a batch ends it after that batch, with exit code 1 and the " +
    "names of those that did not get the command. Ctrl-C ends the waiting, not the stopping of those " +
    "that got it.\n--via sends Exit on the channels of URLs, as exits has them, instead of the command over " +
    "NATS: every collector that listens there stops, and none answers. With control-secret it is signed. " +
    "Exit code 0 when the brokers have it.",
};

const HOUR_MS = 3_600_000;

/** A duration; the flag alone waits for nothing more than what is waited for anyhow. */
const gap: Kind<number> = { ...duration({ min: 0, max: 24 * HOUR_MS }), bare: "0s" };

const COMMON = section("Command", [
  setting({
    name: "target",
    kind: text("TARGET", "all, GROUP or GROUP.ID"),
    default: "all",
    meaning: "which collectors: all, GROUP or GROUP.ID",
  }),
  setting({
    name: "timeout",
    kind: duration({ min: 100, max: 24 * HOUR_MS }),
    default: "30s",
    meaning: "how long to wait altogether (stop --batch: for each batch)",
  }),
  setting({
    name: "json",
    kind: boolean,
    default: "false",
    meaning: "one line of JSON an answer",
  }),
]);

const WATCH = section("Command", [
  setting({
    name: "watch",
    kind: boolean,
    default: "false",
    meaning: "show it again every 2 s until Ctrl-C: in place on a terminal, appended elsewhere",
  }),
]);

const DRY_RUN = section("Command", [
  setting({
    name: "dry-run",
    kind: boolean,
    default: "false",
    meaning: "list the collectors that would obey; only their status is asked for",
  }),
]);

const STOP = section("Command", [
  setting({
    name: "yes",
    kind: boolean,
    default: "false",
    meaning: "do not ask; on a terminal stopping all asks first",
  }),
  setting({
    name: "batch",
    kind: count({ min: 1, max: 100_000 }),
    default: null,
    meaning: "stop so many at a time, in the order of status, the next when these have stopped; " +
      "the first that refuses, is late or loses rows ends it",
  }),
  setting({
    name: "wait",
    kind: gap,
    default: null,
    meaning: "with --batch: after a batch has stopped wait so long before the next, such as for " +
      "the hosts to be back; without a DURATION no longer than until it has stopped",
  }),
  setting({
    name: "via",
    kind: exitUrls,
    default: null,
    meaning:
      "exit channels to send Exit on, such as redis://host?channel=exitCh; a password stands " +
      "in a file (password-file=)",
  }),
]);

const ALL = [...COMMON, ...WATCH, ...DRY_RUN, ...STOP] as const;

/** What was given; a flag that the command does not have is absent. */
export type ControlFlags =
  & ValuesOf<typeof COMMON>
  & Partial<ValuesOf<typeof ALL>>;

/** The flags of a command, in the order of its help. */
export function flagsOf(command: Command): readonly SettingSpec[] {
  if (command === "status") return [...COMMON, ...WATCH];
  if (command === "stop") return [...COMMON, ...DRY_RUN, ...STOP];
  return [...COMMON, ...DRY_RUN];
}

const ONLY: readonly SettingName[] = [...NATS.map(({ name }) => name), "ca-file"];

/** The five commands; `command` is also the last word of the subject that it is sent on. */
export function controlCommand(command: Command): CliCommand {
  const usage = `shishi ${command} [--target all|GROUP|GROUP.ID] [--timeout DURATION] ...`;
  const [first = "", ...rest] = SUMMARY[command];
  const about = [`${first.toUpperCase()}${rest.join("")}.`, MORE[command], WAITING, EXIT_CODES]
    .filter((text) => text !== undefined).join("\n");
  const extra = flagsOf(command);
  return {
    name: command,
    summary: SUMMARY[command],
    page: { usage, about, only: ONLY, extra },
    async run(argv) {
      const loaded = settingsOrExitCode(argv, { command, only: ONLY, extra });
      if (typeof loaded === "number") return loaded;
      // The flags are the command's own; the compiler knows only that they are some.
      const flags = loaded.extra as unknown as ControlFlags;
      const via = flags.via ?? null;
      const problem = via !== null
        ? problemOfVia(via, flags)
        : loaded.settings.nats === null
        ? "nats-url: expected the address of a NATS server, got none (--nats-url or " +
          "SHISHI_NATS_URL)"
        : (flags.wait ?? 0) > 0 && (flags.batch ?? null) === null
        ? "--wait: expected --batch with it, got a stop of all at once"
        : null;
      if (problem !== null) {
        console.error(`shishi: ${problem}`);
        return 2;
      }
      return via === null
        ? await run(command, loaded.settings, flags)
        : await stopVia(via, loaded.settings, flags);
    },
  };
}

/** Why an Exit cannot be sent so, or null. What it would not do must not look as if it did. */
function problemOfVia(
  via: readonly ExitAddress[],
  { target, json, batch, wait, ...flags }: ControlFlags,
): string | null {
  for (const { broker, label, user, password } of via) {
    // As NATS reads it, what stands alone before the @ is a token.
    const token = broker === "nats" && user !== null && password === null;
    if (token || (password !== null && "text" in password)) {
      return `--via: expected ${label} without a secret, which every user of this host can read in an ` +
        `argument list (${token ? "token-file=" : "password-file="} takes it)`;
    }
  }
  const without = [
    target === "all" ? null : "target",
    json ? "json" : null,
    flags["dry-run"] ? "dry-run" : null,
    (batch ?? null) === null ? null : "batch",
    (wait ?? null) === null ? null : "wait",
  ].find((name) => name !== null);
  return without === undefined
    ? null
    : `--${without}: has no effect with --via: every collector that listens there stops, and none answers`;
}

async function stopVia(
  via: readonly ExitAddress[],
  settings: Settings,
  { timeout, yes }: ControlFlags,
): Promise<number> {
  const channels = via.map(({ name, label }) => `${name} (${label})`);
  const confirm = yes ? null : confirmOnTerminal();
  if (confirm !== null) {
    const asked = `Stop every collector that listens on ${channels.join(", ")}? [y/N] `;
    if (!await confirm(asked)) {
      console.log("nothing stopped");
      return 1;
    }
  }
  const [{ sendExit }, { forBrokers, SILENT }] = await Promise.all([
    import("../sources/exit.ts"),
    import("../runtime/for_brokers.ts"),
  ]);
  const { controlSecret, authorities } = settings;
  const outside = forBrokers({ ...settings, log: SILENT, own: () => authorities });
  const sent = await Promise.all(via.map(async (address, at) => {
    try {
      await sendExit(address, controlSecret, outside, timeout);
      const all = controlSecret === null ? "" : " and has this control-secret";
      console.log(`sent on ${channels[at]}: every collector that listens there${all} stops`);
      return true;
    } catch (error) {
      console.error(`shishi: not sent on ${channels[at]}: ${reasonOf(error)}`);
      return false;
    }
  }));
  return sent.every(Boolean) ? 0 : 1;
}

/** With everything that the terminal, if there is one, and signals have to say. */
async function run(
  command: Command,
  { nats, controlSecret, authorities: own }: Settings,
  flags: ControlFlags,
): Promise<number> {
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
    return await controlFleet(command, {
      ...nats!,
      controlSecret,
      openSocket: createOpenSocket(() => authorities(own)),
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
