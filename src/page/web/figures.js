/** State, the eight figures and the books. */
// @ts-check
/// <reference lib="dom" />
import { byId, mark, say } from "./dom.js";
import {
  age,
  bytes,
  count,
  exact,
  millis,
  NOTHING,
  percent,
  plural,
  rate,
  seconds,
} from "./format.js";

/** @typedef {import("../moment.ts").Moment} Moment */
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
 * Nobody tells the state any more.
 * @param {string} name
 * @param {string} why
 */
export function showGone(name, why) {
  mark(byId("state"), "state", "stopped");
  showName(name, why);
}

/**
 * @param {string} name also for those who have the pages of several collectors open
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
