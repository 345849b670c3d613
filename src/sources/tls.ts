/**
 * What every broker's connection has in common: how TLS is spoken with it, its password, and what it means
 * when TLS fails. Both runtimes name the faults of a certificate by the same codes; their texts differ.
 */

import type { BrokerAddress, BrokerDeps, Secret } from "../contracts.ts";
import process from "node:process";
import { nodeCrypto } from "../kernel/builtins.ts";
import { codeOf, messageOf } from "../kernel/errors.ts";

/** For `tls.connect` of the runtime. */
export interface TlsOptions {
  readonly ca: string[];
  readonly cert?: string;
  readonly key?: string;
}

/**
 * Reads the files again: they may have been renewed. Rejects with a sentence that names what cannot be read, or is
 * not what it should be: of a key that is another certificate's a runtime says something else.
 */
export async function tlsOptions(
  { ca, cert, key }: Pick<BrokerAddress, "ca" | "cert" | "key">,
  deps: Pick<BrokerDeps, "readFile" | "authorities">,
): Promise<TlsOptions> {
  const [own, shown, its] = await Promise.all([
    fileText("ca", ca, deps),
    fileText("cert", cert, deps),
    fileText("key", key, deps),
  ]);
  if (own !== null && !own.includes("-----BEGIN CERTIFICATE-----")) {
    throw new Error(`ca: expected a PEM file with certificates, got ${ca}`);
  }
  if (shown !== null && its !== null) checkPair(shown, its);
  // What is given takes the place of the runtime's own authorities, so these are given too.
  const { rootCertificates } = process.getBuiltinModule("node:tls");
  return {
    ca: [...(own === null ? [] : [own]), ...deps.authorities(), ...rootCertificates],
    ...(shown === null || its === null ? {} : { cert: shown, key: its }),
  };
}

function checkPair(cert: string, key: string): void {
  const { X509Certificate, createPrivateKey } = nodeCrypto();
  const read = <T>(name: string, what: string, parse: () => T): T => {
    try {
      return parse();
    } catch {
      throw new Error(`${name}: expected a PEM file with a ${what}`);
    }
  };
  const certificate = read("cert", "certificate", () => new X509Certificate(cert));
  const own = read("key", "private key without a passphrase", () => createPrivateKey(key));
  if (!certificate.checkPrivateKey(own)) throw new Error("cert= and key= do not belong together");
}

/** "" where there is none. A file's last line break is none of the secret's. */
export async function secretText(
  secret: Secret | null,
  deps: Pick<BrokerDeps, "readFile">,
): Promise<string> {
  if (secret === null) return "";
  if ("text" in secret) return secret.text;
  return (await fileText("password-file", secret.file, deps) ?? "").replace(/\r?\n$/, "");
}

async function fileText(
  name: string,
  path: string | null,
  deps: Pick<BrokerDeps, "readFile">,
): Promise<string | null> {
  if (path === null) return null;
  try {
    return await deps.readFile(path);
  } catch (error) {
    throw new Error(`${name}: ${messageOf(error)}`, { cause: error });
  }
}

/** Code or text → what is to be said of it, most telling first. */
const FAULTS: readonly (readonly [RegExp, string])[] = [
  [/CERT_HAS_EXPIRED/, "the server's certificate has expired"],
  [/CERT_NOT_YET_VALID/, "the server's certificate is not valid yet"],
  [/ALTNAME_INVALID/, "the server's certificate is for another name than that of the address"],
  [
    /SELF_SIGNED|UNABLE_TO_VERIFY|UNABLE_TO_GET_ISSUER|CERT_UNTRUSTED|UNKNOWN_?ISSUER/i,
    "the server's certificate is by an authority that is not trusted; ca= names the file of one",
  ],
  [
    /ALERT_CERTIFICATE_REQUIRED|CertificateRequired|ALERT_HANDSHAKE_FAILURE|HandshakeFailure/i,
    "the server wants to be shown a certificate (cert= and key=)",
  ],
  [
    /ALERT_(?:UNKNOWN_CA|BAD_CERTIFICATE|CERTIFICATE_\w+|UNSUPPORTED_CERT\w*)|alert: (?:UnknownCA|BadCertificate)/i,
    "the server refuses the certificate that cert= shows it",
  ],
  [
    /WRONG_VERSION_NUMBER|InvalidContentType|PACKET_LENGTH_TOO_LONG|HTTP_REQUEST/i,
    "what answers there speaks no TLS",
  ],
];

/** What a failure of TLS means, as a sentence without a full stop; null: it is none of TLS. */
export function tlsFault(error: unknown): string | null {
  const code = codeOf(error);
  const known = FAULTS.find(([pattern]) => pattern.test(code)) ??
    FAULTS.find(([pattern]) =>
      /ssl|tls|certificate|alert|pem/i.test(messageOf(error)) &&
      pattern.test(messageOf(error))
    );
  return known?.[1] ?? null;
}
