/**
 * Which Shishi this is: the version from its one place, package.json; the commit and the platform from
 * the build, which writes them in (`.release/build.ts`).
 */

import process from "node:process";
import manifest from "../package.json" with { type: "json" };

declare const SHISHI_COMMIT: string | undefined;
declare const SHISHI_TARGET: string | undefined;

export const VERSION: string = manifest.version;

/** Twelve digits, `-dirty` behind them where files had been changed since; `unknown` run from source. */
export const COMMIT: string = typeof SHISHI_COMMIT === "string" ? SHISHI_COMMIT : "unknown";

/** What it was built for, e.g. `linux-x64-musl`; run from source, or bundled, where it runs. */
export const TARGET: string = typeof SHISHI_TARGET === "string"
  ? SHISHI_TARGET
  : `${process.platform}-${process.arch}`;
