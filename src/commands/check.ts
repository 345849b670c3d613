/**
 * `shishi check`: are the settings usable, and is everything that they name fit for work? One line
 * each, with what to do where something is wrong. Changes nothing anywhere. What it needs is loaded
 * when it runs: other commands must not wait for it.
 */

import process from "node:process";
import type { BrokerDeps, Clock } from "../contracts.ts";
import { nodeUtil } from "../kernel/builtins.ts";
import { about, type Finding } from "../kernel/finding.ts";
import { within } from "../kernel/time.ts";
import { systemClock } from "../runtime/clock.ts";
import { wantsColor } from "../runtime/program.ts";
import { authorities } from "../runtime/authorities.ts";
import { createOpenSocket } from "../runtime/socket.ts";
import { createFetch } from "../runtime/fetch.ts";
import { boolean } from "../settings/kinds.ts";
import type { Settings } from "../settings/settings.ts";
import { section, setting } from "../settings/spec.ts";
import { type CliCommand, settingsOrProblems, tellProblems } from "./cli.ts";

const ABOUT = "Validates the settings and checks all that they name, one line each: ✓ fine, ! " +
  "works but may cause trouble, ✗ wrong, with what to do. Servers: reachable, version, rights, tables and their " +
  "columns, deduplication, clock. Sources: certificate, login, what is read, what will hurt later. This host: data-dir, lock, disk, open files, port, certificate. " +
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
  summary: "validate the settings, check every server and this host",
  page: { about: ABOUT, extra: EXTRA },
  run,
};

/** Of everything about one server or one part of this host. */
const WITHIN_MS = 20_000;

/** @returns the exit code: 0 nothing is wrong, 1 something is, 2 unusable settings. */
async function run(argv: readonly string[]): Promise<number> {
  const loaded = settingsOrProblems(argv, { extra: EXTRA });
  const json = loaded.ok ? loaded.extra.json : argv.includes("--json");
  const color = wantsColor(process.stdout.isTTY === true);
  let wrong = false;
  const tell = (findings: readonly Finding[]) => {
    for (const finding of findings) {
      wrong ||= finding.state === "wrong";
      console.log(json ? jsonOf(finding) : lineOf(finding, color));
    }
  };
  const settingsAre = about("settings");
  if (!loaded.ok) {
    if (json) tell(loaded.problems.map((problem) => settingsAre.wrong(problem)));
    tellProblems(loaded.problems, "check");
    return 2;
  }
  tell([settingsAre.ok("usable"), ...loaded.warnings.map((text) => settingsAre.warning(text))]);
  await runLooks(looksOf(loaded.settings), WITHIN_MS, systemClock, tell);
  return wrong ? 1 : 0;
}

/** In the order of the report: servers, then this host. Each is loaded when it is wanted. */
function looksOf(settings: Settings): Look[] {
  const { clickhouse, influx, nats, sources, exits, tls, dataDir, group, id } = settings;
  const clock = systemClock;
  const certificates = () => authorities(settings.authorities);
  return [
    ...clickhouse.map((endpoint): Look => ({
      what: `clickhouse ${endpoint.label}`,
      async look() {
        const { inspectClickHouse } = await import("../deliver/inspect_clickhouse.ts");
        return inspectClickHouse(endpoint, { ...settings, tables: tablesOf(settings) }, {
          fetch: createFetch({ pooled: false, certificates }),
          clock,
        });
      },
    })),
    ...(influx === null ? [] : [{
      what: `influxdb ${influx.label}`,
      async look() {
        const { inspectInflux } = await import("../meter/inspect_influx.ts");
        return inspectInflux(influx, { fetch: createFetch({ pooled: true, certificates }), clock });
      },
    }]),
    ...(nats === null ? [] : nats.servers.map((server): Look => ({
      what: `nats ${server}`,
      async look() {
        const { inspectNats } = await import("../remote/inspect_nats.ts");
        return inspectNats(server, {
          ...nats,
          group,
          id,
          clock,
          openSocket: createOpenSocket(certificates),
        });
      },
    }))),
    ...sources.map((address): Look => ({
      what: `source ${address.name}`,
      async look() {
        const { openBroker } = await import("../sources/brokers.ts");
        const broker = await openBroker(address, await outside(settings));
        // Several may read one server.
        const named = `source ${address.name} (${address.label})`;
        return (await broker.inspect()).map((finding) =>
          isNamed(finding.what, address.name) ? finding : { ...finding, what: named }
        );
      },
    })),
    ...exits.map((address): Look => ({
      what: `exit ${address.name} (${address.label})`,
      async look() {
        const { inspectExit } = await import("../sources/exit.ts");
        return inspectExit(address, await outside(settings));
      },
    })),
    {
      what: `data-dir ${dataDir}`,
      async look() {
        const { inspectDataDir } = await import("../spool/inspect_data_dir.ts");
        return inspectDataDir(settings);
      },
    },
    { what: "listen", look: async () => (await host()).lookAtPort(settings) },
    ...(tls === null
      ? []
      : [{ what: "tls-cert", look: async () => (await host()).lookAtCertificate(tls) }]),
    { what: "open files", look: async () => (await host()).lookAtOpenFiles() },
  ];
}

/** Other tables than that of events: those that may be posted to, and those of sources. */
function tablesOf({ tables, sources, table: events }: Settings): readonly string[] {
  const ofSources = sources.flatMap(({ table }) =>
    table === null || table === events ? [] : [table]
  );
  return [...new Set([...tables, ...ofSources])];
}

/** A short name may be a part of its address, which does not make it named. */
function isNamed(what: string, name: string): boolean {
  return what === `source ${name}` ||
    [" ", ","].some((end) => what.startsWith(`source ${name}${end}`));
}

const host = () => import("./check_host.ts");

/** What the files of brokers are handed. */
async function outside({ group, id, authorities }: Settings): Promise<BrokerDeps> {
  const { forBrokers, SILENT } = await import("../runtime/for_brokers.ts");
  return forBrokers({ group, id, log: SILENT, own: () => authorities });
}

/** At once; each has at most a few requests under way. */
const AT_ONCE = 16;

/** Something to look at, and what is said of it where no answer comes in time. */
export interface Look {
  readonly what: string;
  /** Has time limits of its own, and never rejects. */
  look(): Promise<readonly Finding[]>;
}

/**
 * Looks at all of it at the same time, a bounded number, each within a time limit. Calls `tell` once for
 * each, in order, whichever was first.
 * @param withinMs of one look; its own limits are shorter, so this is for what hangs all the same (a
 * folder on a network that is away).
 */
export async function runLooks(
  looks: readonly Look[],
  withinMs: number,
  clock: Clock,
  tell: (findings: readonly Finding[]) => void,
): Promise<void> {
  const results = looks.map(() => Promise.withResolvers<readonly Finding[]>());
  let next = 0;
  const work = async () => {
    for (let at = next++; at < looks.length; at = next++) {
      results[at]!.resolve(await inTime(looks[at]!, withinMs, clock));
    }
  };
  const workers = Array.from({ length: Math.min(AT_ONCE, looks.length) }, work);
  for (const { promise } of results) tell(await promise);
  await Promise.all(workers);
}

function inTime(
  { what, look }: Look,
  withinMs: number,
  clock: Clock,
): Promise<readonly Finding[]> {
  const looked = Promise.resolve().then(look).catch((error) => [about(what).wrong(String(error))]);
  const late = [about(what).wrong(`no answer within ${withinMs / 1000} s`)];
  return within(clock, withinMs, looked, late);
}

const MARK = { ok: ["✓", "green"], warning: ["!", "yellow"], wrong: ["✗", "red"] } as const;

/**
 * Every text may hold what a server said, so nothing in it may start a line of its own:
 * `✗ table t on http://host:8123/default: not there → create it`.
 */
export function lineOf({ what, state, text, todo }: Finding, color: boolean): string {
  const [mark, paint] = MARK[state];
  const shown = color ? nodeUtil().styleText(paint, mark, { validateStream: false }) : mark;
  return `${shown} ${oneLine(`${what}: ${text}${todo === undefined ? "" : ` → ${todo}`}`)}`;
}

/** The same as JSON, in one line. */
export function jsonOf({ what, state, text, todo }: Finding): string {
  return JSON.stringify({ check: what, state, text, ...(todo === undefined ? {} : { todo }) });
}

function oneLine(text: string): string {
  return text.replace(/[\p{Cc}\u2028\u2029]+/gu, " ");
}
