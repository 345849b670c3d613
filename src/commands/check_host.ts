/** This host: may the port be listened on, how many files may be open, and is its certificate fit for use? */

import { X509Certificate } from "node:crypto";
import { accessSync, constants, readFileSync, statSync } from "node:fs";
import { createServer } from "node:net";
import { dirname } from "node:path";
import process from "node:process";
import type { Status } from "../contracts.ts";
import { about, type Finding } from "../kernel/finding.ts";
import { createPost } from "../kernel/http.ts";
import { systemClock } from "../runtime/clock.ts";
import { createFetch } from "../runtime/fetch.ts";
import { type ListenAddress, writeAddress } from "../settings/kinds.ts";
import type { Settings } from "../settings/settings.ts";
import { holderOf } from "../spool/lock.ts";
import { urlHere } from "./cli.ts";
import { healthOf } from "./health.ts";

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
    const server = createServer();
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
): Promise<Finding[]> {
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
  return Promise.resolve(findings);
}

function authoritiesOf(pem: string): X509Certificate[] {
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
