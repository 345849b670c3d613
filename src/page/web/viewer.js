/** Puts the parts together: what the collector sends goes to the parts that show it. */
// @ts-check
/// <reference lib="dom" />
/// <reference lib="dom.iterable" />
import { appended, createCharts, joined } from "./charts.js";
import { mark, say } from "./dom.js";
import {
  createPipe,
  createProblems,
  createTables,
  showAbout,
  showBooks,
  showFigures,
  showGone,
  showSources,
  showState,
} from "./figures.js";
import { clockTime, seconds } from "./format.js";
import { createLetters } from "./letters.js";
import { createPlayground } from "./playground.js";
import { askForToken, follow, prepareLogin } from "./stream.js";

const charts = createCharts();
const showTables = createTables();
const playground = createPlayground();
const letters = createLetters();
const showProblems = createProblems();
const tellPipe = createPipe();

/** @type {import("./charts.js").Columns} */
let columns = [];
/** @type {import("../recorder.ts").About | null} */
let about = null;
/** @type {string | null} */
let ownVersion = null;
let lastMs = 0;
let ended = false;

/** @type {Record<string, (data: any) => void>} */
const listeners = {
  about(told) {
    // What it tells is meant for its own page: this one may show it wrong, or not at all.
    ownVersion ??= told.version;
    const outdated = told.version !== ownVersion;
    mark(document.documentElement, "outdated", String(outdated));
    say("outdated", outdated ? `This page is of version ${ownVersion}, the collector is not.` : "");
    about = told;
    showAbout(told);
    playground.offer(told);
  },
  past(told) {
    columns = joined(columns, told.columns);
    charts.show(columns);
  },
  /** @param {import("../recorder.ts").Moment} moment */
  now(moment) {
    lastMs = Date.now();
    ended = false;
    connected();
    columns = appended(columns, moment.sample);
    charts.show(columns);
    showState(moment);
    showBooks(moment);
    showTables(moment);
    showSources(moment);
    letters.look(moment.books.dead);
    if (about === null) return;
    showFigures(moment, about);
    const [, received, , held] = moment.sample;
    tellPipe({
      held: held ?? 0,
      backlog: about.backlog,
      flowing: (received ?? 0) > 0,
      inserts: moment.inserts,
    });
  },
  problems: showProblems,
  end() {
    ended = true;
    gone("it has stopped");
  },
};

function connected() {
  if (document.documentElement.dataset.connection === "live") return;
  mark(document.documentElement, "connection", "live");
  say("connection", "live");
  say("gone", "");
}

/** @param {string} why */
function gone(why) {
  mark(document.documentElement, "connection", "gone");
  say("connection", "not connected");
  const since = `since ${clockTime(lastMs)}`;
  const told = lastMs === 0
    ? `The collector cannot be reached: ${why}. Trying again …`
    : ended
    ? `The collector has stopped; it is gone ${since}.`
    : `No word from the collector ${since}: ${why}. Trying again …`;
  say("gone", told);
  showGone(ended ? "stopped" : "gone", lastMs === 0 ? why : since);
}

// Not said to screen readers: it would never end.
setInterval(() => {
  const passedS = (Date.now() - lastMs) / 1000;
  const isGone = document.documentElement.dataset.connection === "gone" && lastMs > 0;
  say("gone-for", isGone ? ` (${seconds(Math.floor(passedS))})` : "");
}, 1000);

const again = follow({
  onEvent: (name, data) => listeners[name]?.(JSON.parse(data)),
  onRefused() {
    mark(document.documentElement, "connection", "locked");
    say("connection", "locked");
    say("gone", "The collector wants a token before it tells anything.");
    showGone("locked", "the collector wants a token");
    askForToken();
  },
  onGone: gone,
});
prepareLogin(again);

for (const input of document.querySelectorAll("input[name=span]")) {
  input.addEventListener("change", () => {
    charts.spanS(Number(/** @type {HTMLInputElement} */ (input).value));
  });
}
addEventListener("online", again);
