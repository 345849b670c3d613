/** A text that stays what it is while the program runs: packed once, known again by its tag. */

import { createHash } from "node:crypto";
import { gzipSync } from "node:zlib";

export interface Fixed {
  /** @param request decides by its headers whether it is packed, or known already. */
  answer(request: Request): Response;
}

/** @param more headers besides those for packing and tag. */
export function createFixed(text: string, more: Readonly<Record<string, string>>): Fixed {
  const plain = new TextEncoder().encode(text);
  const packed = gzipSync(plain, { level: 9 });
  const headers = {
    ...more,
    etag: `"${sha256(text).slice(0, 22)}"`,
    "x-content-type-options": "nosniff",
    vary: "accept-encoding",
  };
  return {
    answer({ headers: given }) {
      if (given.get("if-none-match")?.includes(headers.etag)) {
        return new Response(null, { status: 304, headers });
      }
      const gzip = /\bgzip\b(?!\s*;\s*q=0(?:\.0*)?\s*(?:,|$))/.test(
        given.get("accept-encoding") ?? "",
      );
      return gzip
        ? new Response(packed, { headers: { ...headers, "content-encoding": "gzip" } })
        : new Response(plain, { headers });
    },
  };
}

/** In base64. */
export function sha256(text: string): string {
  return createHash("sha256").update(text).digest("base64");
}
