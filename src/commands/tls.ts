/**
 * Are a certificate and a key a pair that can be served? Asked before the start, so that a wrong file
 * is a setting to correct, in the same words on every runtime, and not a code of OpenSSL's.
 */

import { nodeCrypto } from "../kernel/builtins.ts";
import type { Settings } from "../settings/settings.ts";

const BLOCK = /-----BEGIN CERTIFICATE-----(?:(?!-----BEGIN)[\s\S])*/g;

/** @returns null when they are, else a line that names the setting and the file. */
export function tlsProblem({ tls }: Settings): string | null {
  if (tls === null) return null;
  const { certFile, keyFile, cert, key } = tls;
  const certificate = attempt(() => {
    // All of the chain, since the end may be missing of a file that is being written.
    const chain = (cert.match(BLOCK) ?? []).map((block) =>
      new (nodeCrypto().X509Certificate)(block)
    );
    return chain[0] ?? null;
  });
  if (certificate === null) {
    return `tls-cert: expected a PEM file with a certificate, got ${show(certFile)}, damaged`;
  }
  const privateKey = attempt(() => nodeCrypto().createPrivateKey(key));
  if (privateKey === null) {
    return `tls-key: expected an unencrypted private key, got ${
      show(keyFile)
    }, damaged or encrypted`;
  }
  return certificate.checkPrivateKey(privateKey)
    ? null
    : `tls-key: expected the key of ${show(certFile)}, got ${show(keyFile)}, another one's`;
}

const show = (path: string) => JSON.stringify(path);

function attempt<T>(work: () => T): T | null {
  try {
    return work();
  } catch {
    return null;
  }
}
