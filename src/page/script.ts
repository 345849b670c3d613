/**
 * The page's script: the modules in `web/` as one. They import each other like any module, so that
 * they can be read, checked and tested one by one; in the page they stand one after the other, without
 * their imports, exports and comments. Hence no two of them may give the same name to something.
 */

import charts from "./web/charts.js" with { type: "text" };
import copy from "./web/copy.js" with { type: "text" };
import dom from "./web/dom.js" with { type: "text" };
import event from "./web/event.js" with { type: "text" };
import figures from "./web/figures.js" with { type: "text" };
import format from "./web/format.js" with { type: "text" };
import letters from "./web/letters.js" with { type: "text" };
import login from "./web/login.js" with { type: "text" };
import main from "./web/main.js" with { type: "text" };
import past from "./web/past.js" with { type: "text" };
import pipe from "./web/pipe.js" with { type: "text" };
import playground from "./web/playground.js" with { type: "text" };
import problems from "./web/problems.js" with { type: "text" };
import rates from "./web/rates.js" with { type: "text" };
import stream from "./web/stream.js" with { type: "text" };
import tables from "./web/tables.js" with { type: "text" };

/** Who is used stands before who uses. */
// deno-fmt-ignore
const MODULES = [
  format, past, rates, event, dom, copy, login, stream, pipe, figures, charts, tables, problems,
  playground, letters, main,
];

export const script: string = MODULES.map(bare).join("");

/** A module as a piece of a larger one. */
function bare(module: string): string {
  return module
    .replace(/^ *\/\*\*[^]*?\*\/\n/gm, "")
    .replace(/^ *\/\/.*\n/gm, "")
    .replace(/^import [^;]*;\n/gm, "")
    .replace(/^export /gm, "")
    .replace(/\n{2,}/g, "\n");
}
