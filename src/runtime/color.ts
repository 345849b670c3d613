/** Whether colours are wanted: on a terminal that has some, unless the user says otherwise. */

import process from "node:process";

/** `NO_COLOR`: see no-color.org; empty counts as not set. */
export function wantsColor(isTerminal: boolean): boolean {
  const { NO_COLOR = "", TERM = "" } = process.env;
  return isTerminal && NO_COLOR === "" && TERM !== "dumb";
}
