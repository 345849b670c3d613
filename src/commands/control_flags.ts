/** The flags of `shishi status|flush|pause|resume|stop`, besides the settings that they share. */

import type { Command } from "../contracts.ts";
import { boolean, count, duration, text } from "../settings/kinds.ts";
import type { SettingSpec } from "../settings/settings.ts";
import { type Kind, section, setting, type ValuesOf } from "../settings/spec.ts";

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
    meaning: "list who would obey and send nothing but the question for their status",
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
]);

const ALL = [...COMMON, ...WATCH, ...DRY_RUN, ...STOP] as const;

/** What was given; a flag that the command does not have is absent. */
export type ControlFlags =
  & ValuesOf<typeof COMMON>
  & Partial<ValuesOf<typeof ALL>>;

/** The flags of a command, in the order of its help. */
export function controlFlags(command: Command): readonly SettingSpec[] {
  if (command === "status") return [...COMMON, ...WATCH];
  if (command === "stop") return [...COMMON, ...DRY_RUN, ...STOP];
  return [...COMMON, ...DRY_RUN];
}
