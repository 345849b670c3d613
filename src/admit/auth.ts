/**
 * Bearer tokens. Only their hashes are kept, all of equal length, and every one is compared, so that
 * neither memory nor time tells a token.
 */

import { nodeCrypto } from "../kernel/builtins.ts";

/** Which of the tokens an `Authorization` header carries, from 0; -1: none. */
export type Authorize = (header: string | null) => number;

/** @returns null when there are no tokens: everybody may. */
export function createAuth(tokens: readonly string[]): Authorize | null {
  if (tokens.length === 0) return null;
  const hashes = tokens.map(hash);
  return (header) => {
    const match = /^Bearer +(\S+) *$/i.exec(header ?? "");
    if (match === null) return -1;
    const given = hash(match[1]!);
    let found = -1;
    hashes.forEach((known, index) => {
      if (nodeCrypto().timingSafeEqual(known, given)) found = index;
    });
    return found;
  };
}

/** Tells tokens apart without telling them. */
export function nameOf(token: string): string {
  return `token ${nodeCrypto().createHash("sha256").update(token).digest("hex")}`;
}

function hash(token: string): Uint8Array {
  return nodeCrypto().createHash("sha256").update(token).digest();
}
