/**
 * A real Chromium, from the system's package, with a profile of its own that is gone afterwards. It asks nobody but whom
 * the test's pages ask. It is the shell that has the engine alone: the browser that people click on starts a
 * window for each profile, and pages of its own in that, which takes thrice the time.
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
    executablePath: programAt(["/usr/bin/chromium-headless-shell"], "chromium-headless-shell"),
    args: [...ARGS, ...more],
    timeout: START_WITHIN_MS,
  });
}
