/** The busiest tables and event types. */
// @ts-check
/// <reference lib="dom" />
import { byId, make, say } from "./dom.js";
import { count, rate } from "./format.js";
import { createRates } from "./rates.js";

/** @typedef {import("../moment.ts").Moment} Moment */

/**
 * A row is made once and then only told its texts, so that a reader, or a selection, stays where it is.
 * @param {string} id
 * @param {{ cells: string[], title?: string, mark?: string }[]} rows
 */
function fill(id, rows) {
  const body = byId(id);
  while (body.children.length > rows.length) body.lastElementChild?.remove();
  rows.forEach(({ cells, title = "", mark = "" }, at) => {
    const row = body.children[at] ?? body.appendChild(make("tr"));
    while (row.children.length < cells.length) {
      row.append(row.children.length === 0 ? make("th", { scope: "row" }) : make("td"));
    }
    [...row.children].forEach((cell, column) => say(cell, cells[column] ?? ""));
    if (row.getAttribute("title") !== title) row.setAttribute("title", title);
    if (row.getAttribute("data-mark") !== mark) row.setAttribute("data-mark", mark);
  });
}

/** @returns {(moment: Moment) => void} */
export function createTables() {
  const tableRates = createRates();
  const typeRates = createRates();
  return ({ sample, tables, types }) => {
    const atS = sample[0] ?? 0;
    const ofTable = tableRates(atS, new Map(tables.first.map((one) => [one.table, one.received])));
    fill(
      "tables-body",
      tables.first.map((one) => ({
        cells: [
          one.table,
          rate(ofTable.get(one.table)),
          count(one.stored),
          count(one.held),
          count(one.dead),
        ],
        title: one.trouble === undefined ? one.table : `${one.table}: ${one.trouble}`,
        mark: one.trouble === undefined ? "" : "trouble",
      })),
    );
    say("tables-more", more(tables.first.length, tables.more, "Nothing has come yet."));
    /** @param {Moment["types"]["first"][number]} one */
    const key = ({ table, eventType }) => `${table}\n${eventType}`;
    const ofType = typeRates(atS, new Map(types.first.map((one) => [key(one), one.accepted])));
    fill(
      "types-body",
      types.first.map((one) => ({
        cells: [
          one.eventType,
          rate(ofType.get(key(one))),
          count(one.accepted),
          count(one.stored),
        ],
        title: one.eventType,
      })),
    );
    say("types-more", more(types.first.length, types.more, "No event has come yet."));
  };
}

/**
 * @param {number} shown
 * @param {number} left
 * @param {string} none
 */
function more(shown, left, none) {
  return shown === 0 ? none : left === 0 ? "" : `and ${count(left)} more`;
}
