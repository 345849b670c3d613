/** Whether colours are wanted: on a terminal that has some, unless the user says otherwise. */

import process from "node:process";

/** `NO_COLOR`: see no-color.org; empty counts as not set. */
export function wantsColor(stream: { readonly isTTY?: boolean }): boolean {
  const { NO_COLOR = "", TERM = "" } = process.env;
  return stream.isTTY === true && NO_COLOR === "" && TERM !== "dumb";
}
