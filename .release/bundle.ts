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
writeFileSync(BUNDLE, `${commit}\n${readFileSync(BUNDLE, "utf8")}`);
