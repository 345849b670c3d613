/**
 * `shishi health`: asks the collector on this host's `listen` address whether it is alive, for
 * container health checks in images that hold nothing but the binary.
 */

import { request as requestHttp } from "node:http";
import { request as requestHttps } from "node:https";
import type { Settings } from "../settings/settings.ts";
import { type CliCommand, settingsOrExitCode, targetOf, urlHere } from "./cli.ts";

const ONLY = ["listen", "tls-cert", "tls-key", "tls-client-auth", "tls-client-ca"] as const;
const TIMEOUT_MS = 3_000;
const ABOUT = "Asks the collector that listens here for /healthz. Exit code 0 when it is alive, " +
  "1 when it is not. For HEALTHCHECK in an image without curl.";

export const health: CliCommand = {
  name: "health",
  summary: "is the collector on this host alive? (for container health checks)",
  page: { about: ABOUT, only: ONLY },
  async run(argv) {
    const loaded = settingsOrExitCode(argv, { command: "health", only: ONLY });
    if (typeof loaded === "number") return loaded;
    const { url, problem } = await healthOf(loaded.settings);
    if (problem === null) return 0;
    console.error(`shishi: ${url}: ${problem}`);
    return 1;
  },
};

/** Where a collector of these settings is asked, and what is wrong with it; null when it is alive. */
export async function healthOf(
  settings: Settings,
): Promise<{ readonly url: string; readonly problem: string | null }> {
  const here = urlHere(settings);
  const certified = settings.tls?.clients?.required === true;
  return { url: `${here}/healthz`, problem: await ask(here, certified) };
}

/**
 * Null when the answer is 200, else what is wrong. Not `fetch`: the certificate is made for the name
 * that clients use and may have any signature, so it is not looked at. Nothing secret is sent.
 * @param certified clients have to show a certificate. There is none to show: to ask for one is alive.
 */
function ask(url: string, certified: boolean): Promise<string | null> {
  const request = url.startsWith("https:") ? requestHttps : requestHttp;
  const { target, ...at } = targetOf(url, "/healthz");
  const options = { rejectUnauthorized: false, agent: false, timeout: TIMEOUT_MS, ...at };
  return new Promise((resolve) => {
    const asked = request(target, options, (response) => {
      response.resume();
      resolve(response.statusCode === 200 ? null : `answered ${response.statusCode}`);
    });
    let greeted = false;
    asked.on("socket", (socket) => socket.once("secureConnect", () => greeted = true));
    asked.on("error", (error: Error & { code?: string }) => {
      if (certified && greeted) return resolve(null);
      resolve(error.code === "ECONNREFUSED" ? "nothing listens there" : error.message);
    });
    asked.on("timeout", () => {
      resolve(`no answer within ${TIMEOUT_MS / 1000} s`);
      asked.destroy();
    });
    asked.end();
  });
}
