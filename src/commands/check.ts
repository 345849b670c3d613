/**
 * `shishi check`: are the settings usable, and is everything that they name fit for work? One line
 * each, with what to do where something is wrong. Changes nothing anywhere. What it needs is loaded
 * when it runs: other commands must not wait for it.
 */

import type { X509Certificate } from "node:crypto";
import { accessSync, constants, readFileSync, statSync } from "node:fs";
import { dirname } from "node:path";
import process from "node:process";
import type { BrokerDeps, Clock, Status } from "../contracts.ts";
import { nodeCrypto, nodeNet, nodeUtil } from "../kernel/builtins.ts";
import { about, type Finding } from "../kernel/finding.ts";
import { createPost } from "../kernel/http.ts";
import { systemClock, within } from "../kernel/time.ts";
import { wantsColor } from "../runtime/host.ts";
import { authorities } from "../runtime/authorities.ts";
import { createOpenSocket } from "../runtime/socket.ts";
import { createFetch } from "../runtime/fetch.ts";
import { boolean, type ListenAddress, writeAddress } from "../settings/kinds.ts";
import type { Settings } from "../settings/settings.ts";
import { section, setting } from "../settings/spec.ts";
import { holderOf } from "../spool/lock.ts";
import { type CliCommand, settingsOrProblems, tellProblems, urlHere } from "./cli.ts";

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
        const { inspectInflux } = await import("../meter/influx.ts");
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
    { what: "listen", look: () => lookAtPort(settings) },
    ...(tls === null
      ? []
      : [{ what: "tls-cert", look: () => Promise.resolve(lookAtCertificate(tls)) }]),
    { what: "open files", look: () => Promise.resolve(lookAtOpenFiles()) },
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

// ── This host: may the port be listened on, how many files may be open, and is its certificate fit for use?

/** Every address that is listened on. */
export async function lookAtPort(settings: Settings): Promise<Finding[]> {
  const look = (setting: string, all: Settings["listen"]) =>
    all.map((listen) =>
      "path" in listen ? lookAtPath(setting, listen.path) : lookAt(settings, setting, listen)
    );
  const found = [...look("listen", settings.listen), ...look("admin-listen", settings.adminListen)];
  return (await Promise.all(found)).flat();
}

function lookAtPath(setting: string, path: string): Finding[] {
  const is = about(`${setting} unix:${path}`);
  try {
    accessSync(dirname(path), constants.W_OK);
    return [is.ok("a socket in the file system")];
  } catch {
    return [is.wrong(`${dirname(path)} cannot be written`, "make the folder, or choose another")];
  }
}

async function lookAt(
  settings: Settings,
  setting: string,
  listen: ListenAddress,
): Promise<Finding[]> {
  const is = about(`${setting} ${writeAddress(listen)}`);
  const { port } = listen;
  const code = listen.hostname === ""
    ? await tryEverywhere(port)
    : await tryToListen(listen.hostname, port);
  if (code === null) return [is.ok(port === 0 ? "any free port" : "free")];
  if (code === "EADDRINUSE") return [await whoListens(settings, is)];
  if (code === "EACCES" || code === "EPERM") {
    return [is.wrong(
      "permission denied (ports below 1024 need a privilege)",
      "choose a port from 1024 on, or give CAP_NET_BIND_SERVICE",
    )];
  }
  if (["EADDRNOTAVAIL", "EAFNOSUPPORT", "ENOTFOUND", "EAI_AGAIN", "EINVAL"].includes(code)) {
    return [is.wrong("this host has no such address", "see ip address")];
  }
  return [is.wrong(code)];
}

/**
 * The port is in use: by one that shares it, or by the collector that has this data folder, as far as can
 * be seen? Whose socket it is only that process could tell.
 */
async function whoListens(
  settings: Settings,
  is: ReturnType<typeof about>,
): Promise<Finding> {
  const { healthOf } = await import("./health.ts");
  const [{ problem }, holder] = await Promise.all([
    healthOf(settings),
    holderOf(settings.dataDir).catch(() => null),
  ]);
  if (problem !== null) {
    return is.wrong("another program listens there already", "stop that one, or listen elsewhere");
  }
  const mine = holder !== null && holder.alive !== false;
  if (!mine && settings.sharePort) {
    // With ports of their own for that the others tell their ids there alone.
    return settings.adminListen.length > 0
      ? is.ok("other collectors listen there as well")
      : await whoShares(settings, is);
  }
  return mine
    ? is.ok(`a collector listens there, and one runs in ${settings.dataDir} (pid ${holder.pid})`)
    : is.wrong(
      "a collector with another data-dir listens there already",
      "stop that one, or listen elsewhere",
    );
}

/** Connections are shared out by chance: so many reach each of a few collectors, most likely. */
const ASKED = 12;
const ASK_WITHIN_MS = 2_000;

/** Other collectors are on the port, as they should be; none of them may have this one's id. */
async function whoShares(
  settings: Settings,
  is: ReturnType<typeof about>,
): Promise<Finding> {
  const { tls, authTokens: [token], id, group } = settings;
  const certificates = tls === null ? [] : [tls.cert];
  const post = createPost({
    fetch: createFetch({ pooled: false, certificates }),
    clock: systemClock,
  });
  const headers: Record<string, string> = { connection: "close" };
  if (token !== undefined) headers.authorization = `Bearer ${token}`;
  const ask = async (): Promise<readonly string[]> => {
    const answer = await post({
      method: "GET",
      url: `${urlHere(settings)}/api/status`,
      headers,
      body: null,
      timeoutMs: ASK_WITHIN_MS,
    });
    if (!answer.ok || answer.value.status !== 200) return [];
    try {
      const status: Status = JSON.parse(new TextDecoder().decode(answer.value.body));
      return status.group === group ? [status.id] : [];
    } catch {
      // No collector's answer.
      return [];
    }
  };
  const ids = new Set((await Promise.all(Array.from({ length: ASKED }, ask))).flat());
  return ids.has(id)
    ? is.wrong(
      `a collector of the same id (${id}) and another data-dir listens there`,
      "give each collector on the port an id of its own",
    )
    : is.ok(`other collectors listen there as well: ${[...ids].sort().join(", ") || "unknown"}`);
}

async function tryEverywhere(port: number): Promise<string | null> {
  const code = await tryToListen("::", port);
  return code === "EAFNOSUPPORT" || code === "EADDRNOTAVAIL"
    ? await tryToListen("0.0.0.0", port)
    : code;
}

/** Null when it went well, else the system's code. */
function tryToListen(host: string, port: number): Promise<string | null> {
  return new Promise((resolve) => {
    const server = nodeNet().createServer();
    server.once(
      "error",
      // One runtime gives no code to a name that leads to no address.
      (error: Error & { code?: string }) => resolve(error.code ?? "ENOTFOUND"),
    );
    server.listen({ host, port, exclusive: true }, () => server.close(() => resolve(null)));
  });
}

/** Connections and spool files of a busy collector; below it, it may run short. */
const ENOUGH_FILES = 4096;

export function lookAtOpenFiles(): Finding[] {
  let limits = "";
  try {
    limits = readFileSync("/proc/self/limits", "utf8");
  } catch {
    // Another system than Linux.
  }
  return openFiles(limits);
}

/** @param limits the text of `/proc/self/limits`. Nothing where it tells no limit. */
export function openFiles(limits: string): Finding[] {
  const is = about("open files");
  const soft = /^Max open files +(\d+|unlimited)/m.exec(limits)?.[1];
  if (soft === undefined) return [];
  if (soft === "unlimited" || Number(soft) >= ENOUGH_FILES) return [is.ok(`${soft} at most`)];
  return [is.warning(
    `${soft} at most, and every connection takes one`,
    "ulimit -n 65536, or LimitNOFILE=65536 in the service's unit",
  )];
}

const DAY_MS = 86_400_000;
/** A renewal by hand takes about so long; one that runs by itself has come by then. */
const SOON_DAYS = 14;

/** That certificate and key are a pair was seen when the settings were read. */
export function lookAtCertificate(
  { certFile, keyFile, cert, clients }: NonNullable<Settings["tls"]>,
): Finding[] {
  const { X509Certificate } = nodeCrypto();
  const certificate = new X509Certificate(cert);
  const findings = [
    validity(certFile, certificate.validFrom, certificate.validTo, Date.now()),
    ...authoritiesOf(clients?.ca ?? "").map(({ validFrom, validTo }) =>
      validity(clients!.caFile, validFrom, validTo, Date.now(), "tls-client-ca")
    ),
  ];
  // Windows shows no such rights.
  if (process.platform !== "win32" && (statSync(keyFile).mode & 0o004) !== 0) {
    findings.push(
      about(`tls-key ${keyFile}`).warning(
        "every user of this host may read it",
        `chmod 600 ${keyFile}`,
      ),
    );
  }
  return findings;
}

function authoritiesOf(pem: string): X509Certificate[] {
  const { X509Certificate } = nodeCrypto();
  return (pem.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [])
    .map((block) => new X509Certificate(block));
}

/** @param from, to as a certificate writes them: `Jan 31 12:00:00 2027 GMT`. */
export function validity(
  file: string,
  from: string,
  to: string,
  nowMs: number,
  setting = "tls-cert",
): Finding {
  const is = about(`${setting} ${file}`);
  const [fromMs, toMs] = [Date.parse(from), Date.parse(to)];
  const day = (ms: number) => new Date(ms).toISOString().slice(0, 10);
  if (nowMs < fromMs) return is.wrong(`valid only from ${day(fromMs)}`, "check this host's clock");
  if (nowMs >= toMs) return is.wrong(`expired on ${day(toMs)}`, "renew it");
  return toMs - nowMs < SOON_DAYS * DAY_MS
    ? is.warning(`expires on ${day(toMs)}`, "renew it")
    : is.ok(`valid until ${day(toMs)}`);
}
