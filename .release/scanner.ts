/**
 * `npm run scanner`: src/admit/scanner/*.as → src/admit/scanner_wasm.ts, which is kept in the repository
 * so that the program runs from its source. It says of what it was made, which a test compares: to compile it takes a
 * quarter of a minute.
 */

import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const ADMIT = fileURLToPath(new URL("../src/admit/", import.meta.url));
export const COMPILED = join(ADMIT, "scanner_wasm.ts");
/** The compiler wants names that end in `.ts`; for everybody else these files are no TypeScript. */
const OPTIONS =
  "scan.ts --outFile scanner.wasm --runtime stub --noAssert -O3 --converge --initialMemory 3";

/** The sum of the sources, of the compiler and its options, and of the `wasm` that came of them, in base64. */
export function sumWith(wasm: string): string {
  const source = join(ADMIT, "scanner");
  const compiler = new URL("../node_modules/assemblyscript/package.json", import.meta.url);
  const { version } = JSON.parse(readFileSync(compiler, "utf8"));
  const files = readdirSync(source).sort().map((
    name,
  ) => [name, readFileSync(join(source, name), "utf8")]);
  return createHash("sha256").update(JSON.stringify([version, OPTIONS, files, wasm])).digest("hex");
}

/** What `scanner_wasm.ts` should hold. Throws what the compiler says. */
export async function compileScanner(): Promise<string> {
  const { default: asc } = await import("assemblyscript/asc");
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
  const base64 = Buffer.from(wasm).toString("base64");
  return `/**
 * The scanner, compiled from \`scanner/*.as\` by \`npm run scanner\`; base64. It stands on its own because
 * no line of it is written by hand. The sum of what it was made of, and of itself:
 * ${sumWith(base64)}
 */

export const SCANNER_WASM =
  "${base64}";
`;
}

if (import.meta.main) writeFileSync(COMPILED, await compileScanner());
