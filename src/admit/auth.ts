/**
 * Bearer tokens. Only their hashes are kept, all of equal length, and every one is compared, so that
 * neither memory nor time tells a token.
 */

import { Buffer } from "node:buffer";
import { createHash, timingSafeEqual } from "node:crypto";

/** Which of the tokens an `Authorization` header carries, from 0; -1: none. */
export type Authorize = (header: string | null) => number;

/** @returns null when there are no tokens: everybody may. @param digests as of `digestOf`. */
export function createAuth(digests: readonly string[]): Authorize | null {
  if (digests.length === 0) return null;
  const hashes = digests.map((digest) => Buffer.from(digest, "hex"));
  return (header) => {
    const match = /^Bearer +(\S+) *$/i.exec(header ?? "");
    if (match === null) return -1;
    const given = createHash("sha256").update(match[1]!).digest();
    let found = -1;
    hashes.forEach((known, index) => {
      if (timingSafeEqual(known, given)) found = index;
    });
    return found;
  };
}

/** What is kept of a token: its SHA-256 in hexadecimal. */
export function digestOf(token: string): string {
  return createHash("sha256").update(token).digest("hex");
}
