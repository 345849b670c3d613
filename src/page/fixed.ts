/**
 * Texts that stay what they are while the program runs: packed once, known again by their tags. One of them is
 * `GET /shishi.js`, for pages of any site; the page at `GET /` is `document.ts`.
 */

import { createHash } from "node:crypto";
import { gzipSync } from "node:zlib";
import { SHISHI_JS } from "./shishi_js.ts";

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

/** Browsers ask again after a day; what changes is small, and older scripts go on working. */
const CACHE = "public, max-age=86400, stale-while-revalidate=604800";

export function createSnippet(): Fixed {
  return createFixed(`${SHISHI_JS}\n`, {
    "content-type": "text/javascript; charset=utf-8",
    "cache-control": CACHE,
    // Any page may load it, also one that checks its hash or lets nothing foreign in unasked.
    "access-control-allow-origin": "*",
    "cross-origin-resource-policy": "cross-origin",
  });
}
