/**
 * `bun .release/build.ts ENTRY OUTFILE [--no-bytecode]` (`npm run build`): the binary for this machine. Also the one
 * place that knows how any binary is compiled.
 *
 * *Where 115 MB come from* (linux-x64, readelf): 107 are Bun: 82 of code, 23 of constants (Unicode's
 * tables most of all), 3 of its own JavaScript. Ours are 0.7 of JavaScript and 5 of bytecode, without
 * which a start takes three times as long. Bun comes without symbols, so `strip` would save 35 KB; and
 * it would throw away our part.
 */

import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { signAdHoc } from "./macho.ts";
import { readStamp, type Stamp } from "./stamp.ts";
import type { Target } from "./targets.ts";

export const ROOT = fileURLToPath(new URL("../", import.meta.url));

export interface Order {
  /** From `ROOT`. */
  readonly entry: string;
  readonly outfile: string;
  readonly stamp: Stamp;
  /** For another machine than this: with its Bun, an executable. */
  readonly foreign?: { readonly target: Target; readonly runtime: string };
  /** Where the bundler writes what it took, as JSON. */
  readonly metafile?: string;
  /** False: nine tenths of the work are saved, and a start takes three times as long. For tests. */
  readonly bytecode?: boolean;
}

/** Throws when it cannot be compiled; the reason stands on stderr. */
export function build(order: Order): void {
  const { status } = spawnSync(process.execPath, buildArguments(order), {
    cwd: ROOT,
    stdio: ["ignore", "ignore", "inherit"],
  });
  if (status !== 0) throw new Error(`${order.outfile}: bun build ended with exit code ${status}`);
  const machine = order.foreign?.target.name ?? `${process.platform}-${process.arch}`;
  // Which Bun does by itself for the other Macs.
  if (machine === "darwin-x64") {
    const program = resolve(order.outfile);
    writeFileSync(program, signAdHoc(readFileSync(program), "shishi"));
  }
}

function buildArguments(
  { entry, outfile, stamp, foreign, metafile, bytecode = true }: Order,
): string[] {
  const define = (name: string, value: string) => ["--define", `${name}=${JSON.stringify(value)}`];
  return [
    ...["build", entry, "--compile", "--minify", "--sourcemap=none"],
    ...(bytecode ? ["--bytecode"] : []),
    // In pieces, so that what is loaded late is not even looked at before: 2 ms of a start.
    ...["--format=esm", "--splitting"],
    // What lies in the folder where it is started is none of its settings.
    ...["--no-compile-autoload-bunfig", "--no-compile-autoload-dotenv"],
    // The Kafka client brings WebAssembly that it reads from a file beside its own, or has inside: this says which.
    "--tsconfig-override=.release/bun.tsconfig.json",
    // Of a library's, which users can do nothing about.
    "--compile-exec-argv=--no-deprecation",
    // A library asks where it lies, to leave its own lines out of an error's; else that were this folder.
    ...define("__dirname", "/node_modules"),
    ...define("SHISHI_COMMIT", stamp.commit),
    ...(foreign === undefined ? [] : [
      ...define("SHISHI_TARGET", foreign.target.name),
      `--target=${foreign.target.compile}`,
      `--compile-executable-path=${foreign.runtime}`,
    ]),
    ...(metafile === undefined ? [] : [`--metafile=${metafile}`]),
    `--outfile=${resolve(outfile)}`,
  ];
}

if (import.meta.main) {
  const bytecode = !process.argv.includes("--no-bytecode");
  const [entry = "src/main.ts", outfile = "dist/shishi"] = process.argv.slice(2)
    .filter((arg) => !arg.startsWith("--"));
  build({ entry, outfile, stamp: readStamp(ROOT), bytecode });
}
