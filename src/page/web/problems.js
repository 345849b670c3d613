/** The last problems: when, what, how often. */
// @ts-check
/// <reference lib="dom" />
import { byId, createList, make, say } from "./dom.js";
import { dateTime, exact } from "./format.js";

/** @typedef {{ level: string, text: string, times: number, firstMs: number, lastMs: number, batch?: string }} Problem */

/** @returns {(problems: Problem[]) => void} takes them latest first */
export function createProblems() {
  const show = createList(byId("problems-list"), problemItem);
  return (problems) => {
    show(problems);
    say(
      "problems-none",
      problems.length === 0 ? "None since it started. The water runs." : "",
    );
  };
}

/** @param {Problem} problem */
function problemItem({ level, text, times, firstMs, lastMs, batch }) {
  const when = make("time", { datetime: new Date(lastMs).toISOString() }, dateTime(lastMs));
  const often = times > 1 ? [`${exact(times)} times since ${dateTime(firstMs)}`] : [];
  const told = [...often, ...(batch === undefined ? [] : [`batch ${batch}`])].join(" · ");
  return make(
    "li",
    { "data-level": level },
    when,
    make("span", { class: "level" }, level === "error" ? "error" : "warning"),
    make("p", {}, text, ...(told === "" ? [] : [make("small", {}, told)])),
  );
}
