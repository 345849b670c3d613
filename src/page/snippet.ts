/**
 * `GET /shishi.js`, for pages of any site. It stands on its own because pages of other sites load it, and
 * the page at `GET /` is none of theirs.
 */

import { createFixed, type Fixed } from "./fixed.ts";
import { SHISHI_JS } from "./shishi_js.ts";

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
