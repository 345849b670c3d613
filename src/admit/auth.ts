/**
 * Bearer tokens. Only their hashes are kept, all of equal length, and every one is compared, so that
 * neither memory nor time tells a token.
 */

import { createHash, timingSafeEqual } from "node:crypto";

/** Whether an `Authorization` header carries one of the tokens. */
export type Authorized = (header: string | null) => boolean;

/** @returns null when there are no tokens: everybody may. */
export function createAuth(tokens: readonly string[]): Authorized | null {
  if (tokens.length === 0) return null;
  const hashes = tokens.map(hash);
  return (header) => {
    const match = /^Bearer +(\S+) *$/i.exec(header ?? "");
    if (match === null) return false;
    const given = hash(match[1]!);
    let found = false;
    for (const known of hashes) if (timingSafeEqual(known, given)) found = true;
    return found;
  };
}

function hash(token: string): Uint8Array {
  return createHash("sha256").update(token).digest();
}
