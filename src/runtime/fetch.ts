/**
 * `fetch` for requests that must not be sent twice behind our back. Deno resends a POST on a reused
 * connection that dies after the server has read it, which is two inserts for one answer; a client
 * that pools no idle connection does not. Bun reports the broken connection instead. Failures come in
 * plain words.
 */

import { deno } from "./host.ts";
import { plainNetworkError } from "../kernel/errors.ts";

export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

/** `pooled: false` costs a connection a request and is right for anything that is not idempotent. */
export function createFetch(options: { readonly pooled: boolean }): Fetch {
  const plainly = (error: unknown) => Promise.reject(plainNetworkError(error));
  if (!deno?.createHttpClient || options.pooled) {
    return (url, init) => fetch(url, init).catch(plainly);
  }
  const client = deno.createHttpClient({ poolMaxIdlePerHost: 0 });
  return (url, init) => fetch(url, { ...init, client } as RequestInit).catch(plainly);
}
