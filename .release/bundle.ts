/** `npm run bundle`: dist/shishi.js, for those who have Deno already. */

import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { ROOT } from "./build.ts";
import { readStamp } from "./stamp.ts";

const BUNDLE = join(ROOT, "dist/shishi.js");

const { status } = spawnSync(
  join(ROOT, "node_modules/.bin/deno"),
  ["bundle", "--platform=deno", "--minify", "--output", BUNDLE, "src/main.ts"],
  { cwd: ROOT, stdio: "inherit" },
);
if (status !== 0) process.exit(1);
// This bundler knows no constants.
const commit = `const SHISHI_COMMIT=${JSON.stringify(readStamp(ROOT).commit)};`;
writeFileSync(BUNDLE, `${commit}\n${withWasm(readFileSync(BUNDLE, "utf8"))}`);

/** The Kafka client reads its WebAssembly from a file beside its own; in the bundle it is inside. */
function withWasm(bundle: string): string {
  const reading = /[\w$]+\(new URL\("\.\.\/dist\/native\.wasm",\s*import\.meta\.url\)\)/g;
  const found = bundle.match(reading)?.length ?? 0;
  if (found !== 1) throw new Error(`expected one place that reads native.wasm, got ${found}`);
  const wasm = readFileSync(join(ROOT, "node_modules/@platformatic/wasm-utils/dist/native.wasm"));
  return bundle.replace(reading, () => `Buffer.from("${wasm.toString("base64")}","base64")`);
}
