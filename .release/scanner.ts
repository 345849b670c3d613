/**
 * `npm run scanner`: src/admit/scanner/*.as → src/admit/scanner_wasm.ts, which is kept in the repository
 * so that the program runs from its source. A test compares the two.
 */

import asc from "assemblyscript/asc";
import { Buffer } from "node:buffer";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const ADMIT = fileURLToPath(new URL("../src/admit/", import.meta.url));
export const COMPILED = join(ADMIT, "scanner_wasm.ts");
/** The compiler wants names that end in `.ts`; for everybody else these files are no TypeScript. */
const OPTIONS =
  "scan.ts --outFile scanner.wasm --runtime stub --noAssert -O3 --converge --initialMemory 3";

/** What `scanner_wasm.ts` should hold. Throws what the compiler says. */
export async function compileScanner(): Promise<string> {
  let wasm = new Uint8Array(0);
  const { error, stderr } = await asc.main(OPTIONS.split(" "), {
    readFile(name) {
      const path = join(ADMIT, "scanner", name.replace(/\.ts$/, ".as"));
      return existsSync(path) ? readFileSync(path, "utf8") : null;
    },
    writeFile(_name, contents) {
      if (typeof contents !== "string") wasm = new Uint8Array(contents);
    },
    listFiles: () => [],
  });
  if (error !== null) throw new Error(`${stderr.toString()}${error.message}`);
  return `/**
 * The scanner, compiled from \`scanner/*.as\` by \`npm run scanner\`; base64. It stands on its own because
 * no line of it is written by hand.
 */

export const SCANNER_WASM =
  "${Buffer.from(wasm).toString("base64")}";
`;
}

if (import.meta.main) writeFileSync(COMPILED, await compileScanner());
