/**
 * What the collector tells of this moment: state, the eight figures, the books, the busiest tables and
 * event types, the last problems, and the bamboo pipe.
 */
// @ts-check
/// <reference lib="dom" />
/// <reference lib="dom.iterable" />
import { byId, createList, make, mark, say } from "./dom.js";
import {
  age,
  bytes,
  count,
  dateTime,
  exact,
  millis,
  NOTHING,
  percent,
  plural,
  rate,
  seconds,
} from "./format.js";

/** @typedef {import("../recorder.ts").Moment} Moment */
/** @typedef {import("../recorder.ts").About} About */

const MEANING = {
  running: "events are taken and flow",
  paused: "new events are refused; what is held is sent",
  draining: "it is stopping: what is held is sent, new events are refused",
  degraded: "events are taken and kept; something keeps them from flowing",
  stopped: "it has ended",
};

/** @param {About} about */
export function showAbout({ group, id, version, runtime }) {
  say("who", `${group}.${id}`);
  say("program", `shishi ${version} on ${runtime}`);
}

/** @param {Moment} moment */
export function showState({ state, reasons, uptime_s, recovering }) {
  // That it is paused or draining, its name says.
  const why = reasons.filter((reason) => reason !== state);
  mark(byId("state"), "state", state === "running" && why.length > 0 ? "degraded" : state);
  showName(state, why.length > 0 ? why.join(" · ") : MEANING[state]);
  say("uptime", `up ${seconds(uptime_s)}${recovering ? " · reading the spool" : ""}`);
}

/**
 * The state is not known any more.
 * @param {string} name
 * @param {string} why
 */
export function showGone(name, why) {
  mark(byId("state"), "state", "stopped");
  showName(name, why);
}

/**
 * @param {string} name also in the title, to tell the pages of several collectors apart
 * @param {string} why
 */
function showName(name, why) {
  say("state-name", name);
  say("state-why", why);
  // Several reasons may be more than there is room for.
  byId("state-why").title = why;
  const who = (byId("who").textContent ?? "").trim();
  const title = [name, who, "Shishi"].filter((part) => part !== "").join(" · ");
  if (document.title !== title) document.title = title;
}

/**
 * @param {Moment} moment
 * @param {About} about
 */
export function showFigures({ sample, books, inserts, retries }, about) {
  const [, received, stored, held, memory, spool, oldest, p50, p99] = sample;
  say("f-received", rate(received));
  say("f-stored", rate(stored));
  say("f-held", count(held));
  say("f-held-more", `${percent(held ?? 0, about.backlog)} of ${count(about.backlog)} rows`);
  say("f-bytes", bytes((memory ?? 0) > (spool ?? 0) ? memory : spool));
  say("f-bytes-more", `${bytes(memory)} memory, ${bytes(spool)} disk`);
  say("f-oldest", held ? age(oldest) : NOTHING);
  say("f-p50", millis(p50));
  say("f-p99", `p99 ${millis(p99)}`);
  say("f-retries", count(retries));
  say("f-retries-more", `${plural(inserts, "INSERT", "INSERTs")} stored`);
  say("f-dead", count(books.dead));
  mark(byId("f-dead").parentElement ?? byId("f-dead"), "some", String(books.dead > 0));
}

const TERMS = /** @type {const} */ ([
  "received",
  "recovered",
  "rejected",
  "stored",
  "dead",
  "held",
  "lost",
]);

/** @param {Moment} moment */
export function showBooks({ books, difference }) {
  for (const term of TERMS) say(`b-${term}`, exact(books[term]));
  mark(byId("b-lost"), "some", String(books.lost > 0));
  mark(byId("balance"), "balances", String(difference === 0));
  say(
    "balance",
    difference === 0
      ? "The books balance: every row is accounted for."
      : `The books differ by ${plural(Math.abs(difference), "row", "rows")}: please report this.`,
  );
}

// ── The busiest tables and event types.

/**
 * A row is made once and then only its texts change, so that a reader, or a selection, stays where it is.
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

/** @param {Moment} moment */
export function showSources({ sources }) {
  byId("sources").hidden = sources.first.length === 0;
  fill(
    "sources-body",
    sources.first.map(({ name, state, why, rows, lag, unacked, repeated, dead }) => ({
      cells: [
        // Why has more room here than beside the state.
        why === null ? name : `${name}: ${why}`,
        state,
        count(rows),
        lag === null ? NOTHING : count(lag),
        count(unacked),
        count(repeated),
        count(dead),
      ],
      title: why === null ? name : `${name}: ${why}`,
      mark: state === "running" || state === "paused" ? "" : "trouble",
    })),
  );
  say("sources-more", more(sources.first.length, sources.more, ""));
}

/**
 * @param {number} shown
 * @param {number} left
 * @param {string} none
 */
function more(shown, left, none) {
  return shown === 0 ? none : left === 0 ? "" : `and ${count(left)} more`;
}

// ── Counts that only grow, as rates over the last seconds.

const OVER_S = 5;

/**
 * @returns {(atS: number, counts: ReadonlyMap<string, number>) => Map<string, number>} takes the counts
 * of a moment, gives what came a second; nothing for those that it has not seen before.
 */
export function createRates() {
  /** @type {{ atS: number, counts: ReadonlyMap<string, number> }[]} */
  const seen = [];
  return (atS, counts) => {
    // Another process counts from the start.
    const last = seen.at(-1);
    if (last && (atS <= last.atS || fell(last.counts, counts))) seen.length = 0;
    seen.push({ atS, counts });
    const recent = seen.findLastIndex((one) => atS - one.atS >= OVER_S);
    if (recent > 0) seen.splice(0, recent);
    const first = seen[0] ?? { atS, counts };
    const passedS = atS - first.atS;
    /** @type {Map<string, number>} */
    const rates = new Map();
    for (const [name, value] of counts) {
      const before = first.counts.get(name);
      if (passedS > 0 && before !== undefined) rates.set(name, (value - before) / passedS);
    }
    return rates;
  };
}

/**
 * @param {ReadonlyMap<string, number>} before
 * @param {ReadonlyMap<string, number>} now
 */
function fell(before, now) {
  return [...now].some(([name, value]) => value < (before.get(name) ?? 0));
}

// ── The last problems: when, what, how often.

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

/** @type {Record<string, string>} */
const LEVELS = { error: "error", warn: "warning", info: "change" };

/** @param {Problem} problem */
function problemItem({ level, text, times, firstMs, lastMs, batch }) {
  const when = make("time", { datetime: new Date(lastMs).toISOString() }, dateTime(lastMs));
  const often = times > 1 ? [`${exact(times)} times since ${dateTime(firstMs)}`] : [];
  const told = [...often, ...(batch === undefined ? [] : [`batch ${batch}`])].join(" · ");
  return make(
    "li",
    { "data-level": level },
    when,
    make("span", { class: "level" }, LEVELS[level] ?? level),
    make("p", {}, text, ...(told === "" ? [] : [make("small", {}, told)])),
  );
}

// ── The shishi-odoshi: the bamboo pipe that fills with what is held and tips when an INSERT was stored.
// It says nothing that the figures do not say, so it is hidden from screen readers.

/** Between two strokes: a garden is no drum. */
const REST_MS = 2600;

/**
 * @returns {(told: { held: number, backlog: number, flowing: boolean, inserts: number }) => void}
 */
export function createPipe() {
  const garden = /** @type {HTMLElement} */ (/** @type {unknown} */ (byId("garden")));
  /** @type {number | null} */
  let inserts = null;
  let tippedMs = -Infinity;
  return (told) => {
    // A few rows are to be seen, and a million still fits.
    const level = Math.min(
      1,
      Math.log10(1 + told.held) / Math.log10(1 + Math.max(9, told.backlog)),
    );
    garden.style.setProperty("--level", level.toFixed(3));
    mark(garden, "flowing", String(told.flowing));
    const tips = inserts !== null && told.inserts > inserts;
    inserts = told.inserts;
    const nowMs = performance.now();
    if (!tips || nowMs - tippedMs < REST_MS) return;
    tippedMs = nowMs;
    mark(garden, "tips", garden.dataset.tips === "odd" ? "even" : "odd");
  };
}
