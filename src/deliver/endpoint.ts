/**
 * Who we are at a ClickHouse. Credentials travel in headers only, because URLs end up in access logs,
 * errors and process lists.
 */

import type { Endpoint } from "../contracts.ts";

/** What every request to this endpoint carries; nothing where no user is named. */
export function credentials(endpoint: Endpoint): Record<string, string> {
  if (endpoint.user === "" && endpoint.password === "") return {};
  return {
    "X-ClickHouse-User": headerSafe(endpoint.user || "default"),
    "X-ClickHouse-Key": headerSafe(endpoint.password),
  };
}

/** Header values are bytes: the UTF-8 of a secret is sent as it is, one byte a character. */
function headerSafe(value: string): string {
  let bytes = "";
  for (const byte of new TextEncoder().encode(value)) bytes += String.fromCharCode(byte);
  return bytes;
}
