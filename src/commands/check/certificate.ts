/** The certificate that HTTPS is served with: for whom, until when, and is its key kept? */

import { X509Certificate } from "node:crypto";
import { statSync } from "node:fs";
import process from "node:process";
import type { Settings } from "../../settings/settings.ts";
import { about, type Finding } from "./finding.ts";

const DAY_MS = 86_400_000;
/** Who renews by hand needs about so long, and who lets it be renewed has done so by then. */
const SOON_DAYS = 14;

/** That certificate and key are a pair was seen when the settings were read. */
export function lookAtCertificate(
  { certFile, keyFile, cert }: NonNullable<Settings["tls"]>,
): Promise<Finding[]> {
  const certificate = new X509Certificate(cert);
  const findings = [
    validity(certFile, certificate.validFrom, certificate.validTo, Date.now()),
  ];
  // Windows does not tell who may read it.
  if (process.platform !== "win32" && (statSync(keyFile).mode & 0o004) !== 0) {
    findings.push(
      about(`tls-key ${keyFile}`).warning(
        "everybody on this host may read it",
        `chmod 600 ${keyFile}`,
      ),
    );
  }
  return Promise.resolve(findings);
}

/** @param from, to as a certificate writes them: `Jan 31 12:00:00 2027 GMT`. */
export function validity(file: string, from: string, to: string, nowMs: number): Finding {
  const is = about(`tls-cert ${file}`);
  const [fromMs, toMs] = [Date.parse(from), Date.parse(to)];
  const day = (ms: number) => new Date(ms).toISOString().slice(0, 10);
  if (nowMs < fromMs) return is.wrong(`valid only from ${day(fromMs)}`, "see this host's clock");
  if (nowMs >= toMs) return is.wrong(`expired on ${day(toMs)}`, "renew it");
  return toMs - nowMs < SOON_DAYS * DAY_MS
    ? is.warning(`expires on ${day(toMs)}`, "renew it")
    : is.ok(`valid until ${day(toMs)}`);
}
