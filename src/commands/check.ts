/**
 * `shishi check`: are the settings usable, and is every server they name there? One line each, with
 * what to do where something is wrong. Changes nothing anywhere.
 */

import process from "node:process";
import { styleText } from "node:util";
import { createPost } from "../deliver/post.ts";
import { createQuery, type Query } from "../deliver/query.ts";
import { quoteString } from "../deliver/sql.ts";
import { createTables } from "../deliver/tables.ts";
import type { Log } from "../contracts.ts";
import { createInflux } from "../meter/influx.ts";
import { MEASUREMENTS } from "../meter/report.ts";
import { dial } from "../remote/nats.ts";
import { systemClock } from "../runtime/clock.ts";
import { createFetch } from "../runtime/fetch.ts";
import type { Endpoint, Settings } from "../settings/settings.ts";
import type { CliCommand } from "./command.ts";
import { settingsOrExitCode } from "./load.ts";

const TIMEOUT_MS = 5_000;
const ABOUT = "Validates the settings and reaches every configured server, one line each. Exit " +
  "code 0 when all is well, 1 when a server is not, 2 when the settings are unusable.";

/** One thing that was looked at. `ok: false`: the collector would be worse off. */
interface Finding {
  readonly ok: boolean;
  readonly text: string;
}

export const check: CliCommand = {
  name: "check",
  summary: "validate the settings and reach every configured server",
  page: { about: ABOUT },
  async run(argv) {
    const loaded = settingsOrExitCode(argv, { command: "check" });
    if (typeof loaded === "number") return loaded;
    const { settings, warnings } = loaded;
    say({ ok: true, text: "settings are usable" });
    for (const warning of warnings) console.log(`! ${warning}`);
    const looks = [
      ...settings.clickhouse.map((endpoint) => lookAtClickHouse(endpoint, settings)),
      ...(settings.influx === null ? [] : [lookAtInflux(settings.influx)]),
      ...(settings.nats === null
        ? []
        : settings.nats.servers.map((server) => lookAtNats(server, settings))),
    ];
    let allWell = true;
    for (const look of looks) {
      for (const finding of await look) {
        say(finding);
        allWell &&= finding.ok;
      }
    }
    return allWell ? 0 : 1;
  },
};

function say({ ok, text }: Finding): void {
  const mark = ok ? "✓" : "✗";
  const color = process.stdout.isTTY === true;
  console.log(`${color ? styleText(ok ? "green" : "red", mark) : mark} ${text}`);
}

async function lookAtClickHouse(endpoint: Endpoint, settings: Settings): Promise<Finding[]> {
  const clock = systemClock;
  const post = createPost({ fetch: createFetch({ pooled: false }), clock });
  const query = createQuery({ endpoint, post, clock, timeoutMs: TIMEOUT_MS });
  const { label, database } = endpoint;
  const about = await query.rows(
    "SELECT version() AS version, (SELECT count() FROM system.databases WHERE name = " +
      `${quoteString(database)}) AS databases, ` +
      "(SELECT count() FROM system.data_type_families WHERE name = 'Map') AS maps",
  );
  if (about.kind === "failed") {
    return [{ ok: false, text: `clickhouse ${label}: ${about.message}` }];
  }
  const { version, databases, maps } = about.value[0] ?? {};
  const server: Finding = { ok: true, text: `clickhouse ${label}: ${version}` };
  if (Number(databases) === 0) {
    return [server, { ok: false, text: `database ${database} on ${label}: not there; create it` }];
  }
  return [
    server,
    await lookAtEventsTable(query, endpoint, settings, Number(maps) > 0),
  ];
}

async function lookAtEventsTable(
  query: Query,
  { label, database }: Endpoint,
  { table, createTable }: Settings,
  knowsMaps: boolean,
): Promise<Finding> {
  const tables = createTables({
    query,
    database,
    eventsTable: table,
    clock: systemClock,
    log: QUIET,
  });
  const known = await tables.refresh(table);
  await tables.close();
  const subject = `table ${table} on ${label}`;
  if (known === "unknown") return { ok: false, text: `${subject}: could not be looked up` };
  if (known === "missing") {
    if (!knowsMaps) {
      const text = `${subject}: not there, and this server is too old for it (needs 21.8 or newer)`;
      return { ok: false, text };
    }
    return createTable
      ? { ok: true, text: `${subject}: not there; will be created` }
      : { ok: false, text: `${subject}: not there; create it, or set create-table` };
  }
  const missing = EVENT_COLUMNS.filter((column) => !known.names.has(column));
  return missing.length === 0
    ? { ok: true, text: `${subject}: there, with the columns of an event` }
    : { ok: false, text: `${subject}: lacks ${missing.join(", ")}` };
}

const EVENT_COLUMNS = ["id", "timestamp", "event_type", "user_id", "properties"];
const QUIET: Log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

async function lookAtInflux(endpoint: Endpoint): Promise<Finding[]> {
  const influx = createInflux({
    endpoint,
    measurements: MEASUREMENTS,
    clock: systemClock,
    fetch: createFetch({ pooled: true }),
    timeoutMs: TIMEOUT_MS,
    signal: new AbortController().signal,
  });
  const problem = await influx.reach();
  return [{ ok: problem === null, text: `influxdb ${endpoint.label}: ${problem ?? "answers"}` }];
}

async function lookAtNats(server: string, settings: Settings): Promise<Finding[]> {
  const name = `shishi check ${settings.group}.${settings.id}`;
  const auth = settings.nats?.auth ?? { kind: "none" };
  const options = { server, auth, name, timeoutMs: TIMEOUT_MS };
  const dialled = await dial(options, systemClock, () => {});
  if (dialled.kind === "failed") return [{ ok: false, text: `nats ${dialled.why}` }];
  await dialled.wire.close();
  return [{ ok: true, text: `nats ${dialled.wire.server}: connected` }];
}
