/** Where a collector is spoken to from its own host. */

import { writeAddress } from "../settings/kinds.ts";
import type { Settings } from "../settings/settings.ts";

/** One that listens on every address is spoken to on loopback. */
export function urlHere({ listen, tls }: Settings): string {
  const everywhere: Record<string, string> = { "0.0.0.0": "127.0.0.1", "::": "::1" };
  const hostname = everywhere[listen.hostname] ?? listen.hostname;
  return `${tls === null ? "http" : "https"}://${writeAddress({ ...listen, hostname })}`;
}
