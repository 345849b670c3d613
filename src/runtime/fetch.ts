/**
 * `fetch` for requests that must not be sent twice without the caller's knowledge. Deno resends a POST
 * on a reused connection that dies after the server has read it, which is two inserts for one answer; a
 * client that pools no idle connection does not. Bun reports the broken connection instead. Failures
 * come in plain words.
 */

import process from "node:process";
import { plainNetworkError } from "../kernel/errors.ts";
import type { Fetch } from "../kernel/http.ts";
import { deno } from "./host.ts";

export interface FetchOptions {
  /** `false` costs a connection a request and is right for anything that is not idempotent. */
  readonly pooled: boolean;
  /**
   * PEM texts: authorities that are trusted besides the usual ones; a function is asked at the first
   * request that needs them. A server's own certificate is one of these on Bun; Deno takes none that calls
   * itself an authority for a server's.
   */
  readonly certificates?: readonly string[] | (() => readonly string[]);
}

export function createFetch({ pooled, certificates = [] }: FetchOptions): Fetch {
  const plain = clientOf(pooled, []);
  let secure: object | null = null;
  const trusting = () => {
    const all = typeof certificates === "function" ? certificates() : certificates;
    return {
      ...clientOf(pooled, all),
      ...(deno === undefined && all.length > 0 ? { tls: { ca: roots(all) } } : {}),
    };
  };
  return (url, init) => {
    const more = /^https:/i.test(url) ? secure ??= trusting() : plain;
    return fetch(url, { ...init, ...more } as RequestInit)
      .catch((error) => Promise.reject(plainNetworkError(error)));
  };
}

function clientOf(pooled: boolean, caCerts: readonly string[]): { readonly client?: unknown } {
  if (!deno?.createHttpClient || pooled && caCerts.length === 0) return {};
  return {
    client: deno.createHttpClient({ caCerts, ...(pooled ? {} : { poolMaxIdlePerHost: 0 }) }),
  };
}

/** What is given takes the place of the usual ones, so these are given too. */
function roots(certificates: readonly string[]): string[] {
  // Loaded late: no start needs it.
  return [...process.getBuiltinModule("node:tls").rootCertificates, ...certificates];
}
