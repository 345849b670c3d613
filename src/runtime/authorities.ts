/**
 * Whose signature on a server's certificate counts besides that of the authorities that the runtime brings
 * along: those of `ca-file` and of the system's store, as curl has it. A company's own authority is in
 * that store on every host of it, but neither runtime looks there by itself. `SSL_CERT_FILE` and
 * `SSL_CERT_DIR` name another store, as for OpenSSL; `NODE_EXTRA_CA_CERTS` adds to it.
 */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";

/** Where distributions keep all of it in one file; the first that is there counts. */
const STORES = [
  "/etc/ssl/certs/ca-certificates.crt", // Debian, Ubuntu, Alpine, Arch
  "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Fedora, RHEL
  "/etc/pki/tls/certs/ca-bundle.crt",
  "/etc/ssl/ca-bundle.pem", // SUSE
  "/etc/ssl/cert.pem", // macOS, BSD
];
const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g;

type Env = Readonly<Record<string, string | undefined>>;

/**
 * PEM texts, one a certificate, without those that the runtime knows already. A store that cannot be read
 * has none.
 * @param own the text of `ca-file`, or null.
 */
export function authorities(own: string | null, env: Env = process.env): readonly string[] {
  const known = new Set(
    process.getBuiltinModule("node:tls").rootCertificates.map(bare),
  );
  const found = new Map<string, string>();
  for (const text of [own ?? "", extraText(env), ...storeTexts(env)]) {
    for (const [certificate] of text.matchAll(CERTIFICATE)) {
      if (!known.has(bare(certificate))) found.set(bare(certificate), certificate);
    }
  }
  return [...found.values()];
}

/** Which the runtimes would trust too, where they were not given any others. */
function extraText({ NODE_EXTRA_CA_CERTS = "" }: Env): string {
  return NODE_EXTRA_CA_CERTS === "" ? "" : read(NODE_EXTRA_CA_CERTS);
}

function storeTexts({ SSL_CERT_FILE = "", SSL_CERT_DIR = "" }: Env): string[] {
  if (SSL_CERT_FILE === "" && SSL_CERT_DIR === "") {
    for (const path of STORES) {
      const text = read(path);
      if (text !== "") return [text];
    }
    return [];
  }
  const folders = SSL_CERT_DIR.split(":").filter((folder) => folder !== "");
  return [
    ...(SSL_CERT_FILE === "" ? [] : [read(SSL_CERT_FILE)]),
    ...folders.flatMap((folder) => list(folder).map((name) => read(join(folder, name)))),
  ];
}

function read(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

/** The same certificate is the same text, however its lines are broken. */
function bare(pem: string): string {
  return pem.replace(/-----[^-]*-----|\s/g, "");
}
