/**
 * A real Chromium without a window, from the system's package, with a profile of its own that is gone
 * afterwards. It asks nobody but whom the test's pages ask.
 */
import { type Browser, chromium } from "playwright-core";
import { programAt } from "../servers/process.ts";

const ARGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
/** A cold start beside other tests. */
const START_WITHIN_MS = 60_000;

/** @param more flags of Chromium. Close it at the end. */
export function startBrowser(...more: readonly string[]): Promise<Browser> {
  return chromium.launch({
    executablePath: programAt(["/usr/bin/chromium"], "chromium"),
    args: [...ARGS, ...more],
    timeout: START_WITHIN_MS,
  });
}
