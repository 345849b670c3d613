/** Which path a request is for, as far as anybody must know before it is routed. */

import { getPath } from "hono/utils/url";

/** A request without a usable `Host` (HTTP/1.0, some health checks) may come with its path only. */
export function pathOf(request: Request): string {
  const { url } = request;
  return getPath(url.startsWith("/") ? { url: `http://host${url}` } as Request : request);
}

/** Exactly `/events` on any host; what is written in another way is the router's. */
export function isEvents(url: string): boolean {
  return url.endsWith("/events") && url.indexOf("/", "https://".length) === url.length - 7;
}

/** Whether events or rows are posted there. */
export function isPosting(path: string): boolean {
  return /^\/events(\/[^/]+)?$/.test(path);
}
