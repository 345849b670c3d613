/**
 * `npm run snippet`: src/page/web/shishi.ts → src/page/shishi_js.ts, which is kept in the repository so
 * that the program runs from its source. A test compares the two.
 */

import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "./build.ts";

export const SNIPPET = join(ROOT, "src/page/shishi_js.ts");

/** What `shishi_js.ts` should hold. Throws what the bundler says. */
export function compileSnippet(): string {
  const { status, stdout, stderr } = spawnSync(
    join(ROOT, "node_modules/.bin/bun"),
    ["build", "src/page/web/shishi.ts", "--minify", "--format=iife", "--target=browser"],
    { cwd: ROOT, encoding: "utf8" },
  );
  if (status !== 0) throw new Error(`bun build: ${stderr}`);
  return `/**
 * \`web/shishi.ts\` as pages load it, made by \`npm run snippet\`. It stands on its own because no line of it
 * is written by hand.
 */

// deno-fmt-ignore
export const SHISHI_JS =
  ${JSON.stringify(stdout.trim())};
`;
}

if (import.meta.main) writeFileSync(SNIPPET, compileSnippet());
