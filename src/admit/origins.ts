/**
 * Requests that a browser sends for a page of another site. Any page that somebody opens can post to a
 * collector on the same host or network without asking first (a beacon, a form, text/plain), and one
 * whose owner lets its name point to 127.0.0.1 even counts as the collector's own page (DNS rebinding).
 * Browsers cannot be made to hide who asks: a POST always carries `Origin`, and `Sec-Fetch-Site` comes
 * with every request to https or to this host. Other clients send neither and are not held up. Pure.
 */

import { nodeNet } from "../kernel/builtins.ts";
import { shown } from "./scan.ts";

export interface OriginSettings {
  /** Whose pages may post events, as browsers send them in `Origin`; `*` = all. */
  readonly corsOrigins: readonly string[];
  /** Nothing but being reachable from this host alone keeps strangers out: a name that is not ours is one. */
  readonly onlyOwnHost: boolean;
}

export interface Origins {
  /** Whether pages of this origin may post events and read the answer. */
  readonly allowed: (origin: string) => boolean;
  /**
   * Why a request is refused, or null.
   * @param posting it is for a path that takes events; to the others no other origin has access.
   */
  readonly refusal: (request: Request, posting: boolean) => string | null;
}

export function createOrigins({ corsOrigins, onlyOwnHost }: OriginSettings): Origins {
  const known = new Set(corsOrigins);
  const knownHosts = new Set(corsOrigins.map(hostOf));
  const allowed = known.has("*") ? () => true : (origin: string) => known.has(origin);
  const isOurs = (host: string) => !onlyOwnHost || isOwnHost(host) || knownHosts.has(host);

  return {
    allowed,
    refusal({ headers, method }, posting) {
      const origin = headers.get("origin");
      // Not a browser's: one would say whose page it is.
      if (origin === null && method === "POST") return null;
      if (origin !== null && posting && allowed(origin)) return null;
      const site = headers.get("sec-fetch-site");
      // Also behind a proxy that hands on another Host than it was asked for.
      if (site === "same-origin") return null;
      const host = headers.get("host")?.toLowerCase() ?? "";
      if (origin !== null && hostOf(origin) !== host) {
        const wanted = posting
          ? "this collector's own or one of cors-origins"
          : "the collector's own";
        return `Origin: expected ${wanted}, got ${shown(origin)}`;
      }
      if (site !== null) return isLink(site, headers) ? null : foreignSite(site);
      return isOurs(host) ? null : foreignHost(host);
    },
  };
}

/** A person typed the address, followed a link, or another program of this host asks. */
function isLink(site: string, headers: Headers): boolean {
  return site === "none" || headers.get("sec-fetch-mode") === "navigate";
}

/** Addresses, and names that nobody can own (RFC 6761, 8375 and 9476), so that none lets them point here. */
function isOwnHost(host: string): boolean {
  const name = host.replace(/:\d*$/, "").replace(/^\[(.*)\]$/, "$1");
  return !name.includes(".") || nodeNet().isIP(name) !== 0 ||
    /\.(localhost|test|internal|home\.arpa)$/.test(name);
}

/** `https://app.example:8443` → `app.example:8443`; `null` stays. */
function hostOf(origin: string): string {
  return origin.replace(/^[^/]*:\/\//, "");
}

function foreignSite(site: string): string {
  return `Sec-Fetch-Site: expected same-origin or none, got ${shown(site)}`;
}

function foreignHost(host: string): string {
  return `Host: expected localhost or an address, got ${shown(host)}; ` +
    "set auth-tokens, or add its origin to cors-origins";
}
