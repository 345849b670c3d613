/**
 * `shishi health`: asks the collector on this host's `listen` address whether it is alive, for
 * container health checks in images that hold nothing but the binary.
 */

import { helpText } from "../settings/help.ts";
import type { Settings } from "../settings/settings.ts";
import type { CliCommand } from "./command.ts";
import { settingsOrExitCode } from "./load.ts";

const ONLY = ["listen", "tls-cert", "tls-key"] as const;
const TIMEOUT_MS = 3_000;
const ABOUT = "Asks the collector that listens here for /healthz. Exit code 0 when it is alive, " +
  "1 when it is not. For HEALTHCHECK in an image without curl.";

export const health: CliCommand = {
  name: "health",
  summary: "is the collector on this host alive? (for container health checks)",
  help: () => helpText("health", { about: ABOUT, only: ONLY }),
  async run(argv) {
    const loaded = settingsOrExitCode(argv, { only: ONLY });
    if (typeof loaded === "number") return loaded;
    const url = healthUrl(loaded.settings);
    try {
      const response = await fetch(url, { signal: AbortSignal.timeout(TIMEOUT_MS) });
      await response.arrayBuffer();
      if (response.ok) return 0;
      console.error(`shishi: ${url} answered ${response.status}`);
    } catch (error) {
      console.error(`shishi: ${url}: ${error instanceof Error ? error.message : error}`);
    }
    return 1;
  },
};

/** A server that listens on every address is asked on loopback. */
function healthUrl({ listen, tls }: Settings): string {
  const everywhere: Record<string, string> = { "0.0.0.0": "127.0.0.1", "::": "::1" };
  const hostname = everywhere[listen.hostname] ?? listen.hostname;
  const host = hostname.includes(":") ? `[${hostname}]` : hostname;
  return `${tls === null ? "http" : "https"}://${host}:${listen.port}/healthz`;
}
