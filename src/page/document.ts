/**
 * The page as one document: nothing of it is loaded from elsewhere, so that it works in a closed
 * network, and the browser is forbidden to take anything else. Scripts and style stand in it whole, allowed
 * by their hashes; what the page shows it asks for itself.
 *
 * Its script is the modules in `web/` as one. They import each other like any module, so that they can
 * be read, checked and tested one by one; in the page they stand one after the other, without their
 * imports, exports and comments. Hence no two of them may give the same name to something.
 */

import uplotScript from "uplot/dist/uPlot.iife.min.js" with { type: "text" };
import uplotStyle from "uplot/dist/uPlot.min.css" with { type: "text" };
import { createFixed, type Fixed, sha256 } from "./fixed.ts";
import charts from "./web/charts.js" with { type: "text" };
import dom from "./web/dom.js" with { type: "text" };
import figures from "./web/figures.js" with { type: "text" };
import format from "./web/format.js" with { type: "text" };
import letters from "./web/letters.js" with { type: "text" };
import template from "./web/page.html" with { type: "text" };
import playground from "./web/playground.js" with { type: "text" };
import stream from "./web/stream.js" with { type: "text" };
import style from "./web/style.css" with { type: "text" };
import viewer from "./web/viewer.js" with { type: "text" };

/** What is used stands before what uses it. */
const MODULES = [format, dom, stream, charts, figures, playground, letters, viewer];

export function createDocument(): Fixed {
  const html = fill(template, {
    style: `${uplotStyle}\n${style}`,
    uplot: uplotScript,
    script: MODULES.map(bare).join(""),
  });
  return createFixed(html, {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": policyOf(html),
    "cache-control": "no-cache",
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
  });
}

/** A module as a piece of a larger one. */
function bare(module: string): string {
  return module
    .replace(/^ *\/\*\*[^]*?\*\/\n/gm, "")
    .replace(/^ *\/\/.*\n/gm, "")
    .replace(/^import [^;]*;\n/gm, "")
    .replace(/^export /gm, "")
    .replace(/\n{2,}/g, "\n");
}

/** Puts each text where its name stands in the template. */
function fill(html: string, texts: Readonly<Record<string, string>>): string {
  return html.replace(/\/\* (\w+) \*\//g, (mark, name) => texts[name] ?? mark);
}

/** `default-src 'none'`: what is not named here is forbidden. */
function policyOf(html: string): string {
  const hashes = (element: string) =>
    [...html.matchAll(new RegExp(`<${element}[^>]*>([^]*?)</${element}>`, "g"))]
      .map(([, text = ""]) => `'sha256-${sha256(text)}'`).join(" ");
  return [
    "default-src 'none'",
    `script-src ${hashes("script")}`,
    `style-src ${hashes("style")}`,
    "connect-src 'self'",
    "img-src data:",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
  ].join("; ");
}
