/** All of `shishi check`, in its order: settings, servers, this host. */

import process from "node:process";
import { systemClock } from "../../runtime/clock.ts";
import { wantsColor } from "../../runtime/program.ts";
import type { Settings, SettingSpec } from "../../settings/settings.ts";
import { settingsOrProblems, tellProblems } from "../load.ts";
import { lookAtCertificate } from "./certificate.ts";
import { lookAtClickHouse } from "./clickhouse.ts";
import { lookAtDataDir } from "./data_dir.ts";
import { about, type Finding, jsonOf, lineOf } from "./finding.ts";
import { lookAtOpenFiles, lookAtPort } from "./host.ts";
import { lookAtInflux } from "./influx.ts";
import { type Named, runLooks } from "./looks.ts";
import { lookAtNats } from "./nats.ts";

/** Of everything about one server or one part of this host. */
const WITHIN_MS = 20_000;

/** @returns the exit code: 0 nothing is wrong, 1 something is, 2 unusable settings. */
export async function runCheck(
  argv: readonly string[],
  extra: readonly SettingSpec[],
): Promise<number> {
  const loaded = settingsOrProblems(argv, { extra });
  const json = loaded.ok
    ? (loaded.extra as { readonly json?: boolean }).json === true
    : argv.includes("--json");
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

function looksOf(settings: Settings): Named[] {
  const { clickhouse, influx, nats, tls, dataDir } = settings;
  return [
    ...clickhouse.map((endpoint) => ({
      what: `clickhouse ${endpoint.label}`,
      look: () => lookAtClickHouse(endpoint, settings),
    })),
    ...(influx === null
      ? []
      : [{ what: `influxdb ${influx.label}`, look: () => lookAtInflux(influx) }]),
    ...(nats?.servers ?? []).map((server) => ({
      what: `nats ${server}`,
      look: () => lookAtNats(server, settings),
    })),
    { what: `data-dir ${dataDir}`, look: () => lookAtDataDir(settings) },
    { what: "listen", look: () => lookAtPort(settings) },
    ...(tls === null ? [] : [{ what: "tls-cert", look: () => lookAtCertificate(tls) }]),
    { what: "open files", look: () => Promise.resolve(lookAtOpenFiles()) },
  ];
}
