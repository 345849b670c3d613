/**
 * `npm run bundle`: dist/shishi.js, for those who have Deno already; `bundle.ts ENTRY OUTFILE` makes one of another
 * program. Written into it is what a build of the binary defines, and where the Kafka client's code is in it.
 */

import { spawnSync } from "node:child_process";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import process from "node:process";
import { ROOT } from "./build.ts";
import { readStamp } from "./stamp.ts";

/** In the paths of its files. */
const KAFKA = "node_modules/@platformatic/kafka/";

/** From one place to before another, lines and columns from 0 on. */
type Place = readonly [line: number, column: number, endLine: number, endColumn: number];

interface SourceMap {
  readonly sources: readonly string[];
  readonly mappings: string;
}

/** Where what was bundled of a package lies. */
function placesOf(path: string, { sources, mappings }: SourceMap): Place[] {
  const places: Place[] = [];
  let begun: readonly [number, number] | null = null;
  let source = 0;
  const lines = mappings.split(";");
  lines.forEach((line, at) => {
    let column = 0;
    for (const segment of line === "" ? [] : line.split(",")) {
      const [columns = 0, files] = numbersOf(segment);
      column += columns;
      source += files ?? 0;
      const is = files !== undefined && sources[source]!.includes(path);
      if (is) begun ??= [at, column];
      else if (begun !== null) {
        places.push([...begun, at, column]);
        begun = null;
      }
    }
  });
  if (begun !== null) places.push([...begun as [number, number], lines.length, 0]);
  if (places.length === 0) throw new Error(`nothing of ${path} is in the bundle`);
  return places;
}

const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/** Numbers in a source map: digits of five bits, the lowest first, the sign in the lowest bit of all. */
function numbersOf(segment: string): number[] {
  const numbers: number[] = [];
  let [value, shift] = [0, 0];
  for (const sign of segment) {
    const digit = DIGITS.indexOf(sign);
    value += (digit & 31) << shift;
    shift += 5;
    if ((digit & 32) !== 0) continue;
    numbers.push((value & 1) === 1 ? -(value >> 1) : value >> 1);
    [value, shift] = [0, 0];
  }
  return numbers;
}

/**
 * The Kafka client reads its WebAssembly from a file beside its own; in the bundle it is inside.
 * @returns also where a place is afterwards, as stacks name it: from 1 on, below the line of constants.
 */
function withWasm(bundle: string): { readonly text: string; moved(place: Place): Place } {
  const reading = /[\w$]+\(new URL\("\.\.\/dist\/native\.wasm",\s*import\.meta\.url\)\)/g;
  const [found, ...others] = bundle.matchAll(reading);
  if (found === undefined || others.length > 0) {
    throw new Error("expected one place that reads native.wasm");
  }
  const wasm = readFileSync(join(ROOT, "node_modules/@platformatic/wasm-utils/dist/native.wasm"));
  const inside = `Buffer.from("${wasm.toString("base64")}","base64")`;
  const before = bundle.slice(0, found.index);
  const end = found.index + found[0].length;
  const line = before.split("\n").length - 1;
  const column = found.index - (before.lastIndexOf("\n") + 1) + found[0].length;
  const after = (at: number, of: number) =>
    of + 1 + (at === line && of >= column ? inside.length - found[0].length : 0);
  return {
    text: `${before}${inside}${bundle.slice(end)}`,
    moved: ([from, first, to, last]) => [from + 2, after(from, first), to + 2, after(to, last)],
  };
}

function bundle(entry: string, outfile: string): void {
  const map = `${outfile}.map`;
  const { status } = spawnSync(
    join(ROOT, "node_modules/.bin/deno"),
    ["bundle", "--platform=deno", "--minify", "--sourcemap=external", "--output", outfile, entry],
    { cwd: ROOT, stdio: "inherit" },
  );
  if (status !== 0) throw new Error(`${outfile}: deno bundle ended with exit code ${status}`);
  const places = placesOf(KAFKA, JSON.parse(readFileSync(map, "utf8")));
  rmSync(map);
  const { text, moved } = withWasm(readFileSync(outfile, "utf8"));
  // This bundler knows no constants.
  const constants = `const SHISHI_COMMIT=${JSON.stringify(readStamp(ROOT).commit)},` +
    `SHISHI_KAFKA_CODE=${JSON.stringify(places.map(moved))};`;
  writeFileSync(outfile, `${constants}\n${text}`);
}

if (import.meta.main) {
  const [entry = "src/main.ts", outfile = "dist/shishi.js"] = process.argv.slice(2);
  bundle(entry, resolve(ROOT, outfile));
}
