/**
 * NOTICES: whose work the binary contains, with the licences' own words. Which packages these are is
 * what the bundler says that it took, not what package.json asks for.
 */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** One bundled package. */
export interface Notice {
  readonly name: string;
  readonly version: string;
  /** As its package.json says, e.g. `MIT`. */
  readonly license: string;
  /** The text of its licence and, where there is one, of its notice. */
  readonly text: string;
}

/** The runtime is linked from these; see LICENSE.md in Bun's repository. */
const LINKED: readonly (readonly [license: string, libraries: string])[] = [
  ["LGPL 2", "JavaScriptCore and WebKit"],
  ["LGPL 2.1", "tinycc"],
  [
    "Apache 2.0",
    "simdutf, uSockets, uWebSockets, highway, parts of TigerBeetle's IO, parts of LLVM's libc++abi (with LLVM exception)",
  ],
  [
    "MIT",
    "brotli, c-ares, libdeflate, libuv (Windows), ls-hpack, ls-qpack, lsquic, mimalloc, picohttpparser, uucode",
  ],
  ["BSD", "libbase64, libspng, libwebp, lol-html, zstd"],
  ["their own", "boringssl, ICU, libarchive, libjpeg-turbo, zlib-ng"],
];

/** The folders of the packages that these files are from, sorted. */
export function packagesOf(inputs: readonly string[]): string[] {
  const folders = inputs.flatMap((path) =>
    /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/.exec(path)?.[0] ?? []
  );
  return [...new Set(folders)].sort();
}

/** Throws for a package that does not say under which licence it is. */
export function noticeOf(folder: string): Notice {
  const { name, version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const read = (file: string) => readFileSync(join(folder, file), "utf8").trim();
  const files = readdirSync(folder).sort();
  const own = files.filter((file) => /^(licen[cs]e|copying|notice)/i.test(file)).map(read);
  // Some have it at the end of their README alone.
  const texts = own.length > 0 ? own : files.filter((file) => /^readme/i.test(file))
    .flatMap((file) =>
      /^#+ *licen[cs]e\b[^\n]*\n+([^#]*\bPermission is hereby granted\b[^#]*)/im.exec(read(file))
        ?.[1] ?? []
    );
  if (typeof license !== "string" || texts.length === 0) {
    throw new Error(
      `${folder}: expected a licence in its package.json and its text in a LICENSE file or README, got none`,
    );
  }
  return { name, version, license, text: texts.join("\n\n").trim() };
}

/** @param bun the version of Bun in the binary. */
export function noticesText(notices: readonly Notice[], bun: string): string {
  const rule = "-".repeat(80);
  const byText = new Map<string, Notice[]>();
  for (const notice of notices) {
    byText.set(notice.text, [...byText.get(notice.text) ?? [], notice]);
  }
  return [
    "Shishi is licensed under the MIT licence (file LICENSE). Its binary contains the following works.",
    "",
    rule,
    `Bun ${bun}, MIT licence, https://github.com/oven-sh/bun`,
    "",
    "The binary is Bun's own, unchanged, with Shishi's code appended to it. Bun is linked from the",
    `following; https://github.com/oven-sh/bun/blob/bun-v${bun}/LICENSE.md tells more, and how to`,
    "build Bun anew with a changed JavaScriptCore. Shishi's code can be compiled onto such a Bun:",
    "bun build --compile --compile-executable-path=PATH (npm run build).",
    "",
    ...LINKED.map(([license, libraries]) => `${license}: ${libraries}`),
    "",
    ...[...byText].flatMap(([text, of]) => [
      rule,
      ...of.map(({ name, version, license }) => `${name} ${version}, ${license}`),
      "",
      text,
      "",
    ]),
  ].join("\n");
}
