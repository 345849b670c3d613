/** The newest dead letters: why, when, which row; sent again by a button, one or all of them. */
// @ts-check
/// <reference lib="dom" />
import { byId, createList, make, say } from "./dom.js";
import { dateTime, exact, plural } from "./format.js";
import { ask } from "./stream.js";

/** @typedef {{ table: string, id: string, time: string, code: number, message: string, row: string, rowLength: number }} Letter */
/** @typedef {{ table?: string, ids?: string[] }} Which */

const MOST_SHOWN = 50;
/** Letters that are sent again or deleted elsewhere go without a word. */
const STALE_MS = 20_000;

/** @returns {{ look(dead: number): void }} */
export function createLetters() {
  const list = byId("letters-list");
  /** @type {HTMLButtonElement} */
  const all = byId("replay-all");
  const show = createList(list, (letter) => letterItem(letter, replay));
  /** Letters that were ever written, when they were looked at; null: not, or in vain. */
  /** @type {number | null} */
  let seen = null;
  let lookedMs = -Infinity;
  let total = 0;
  /** @type {Promise<void> | null} */
  let looking = null;
  let sending = false;

  /** One at a time: an answer that comes late must not show what was before. */
  async function look() {
    await looking;
    looking ??= lookOnce().finally(() => looking = null);
    await looking;
  }

  async function lookOnce() {
    lookedMs = performance.now();
    try {
      const { letters, total: found } = await newest();
      total = found;
      const at = [...list.children].findIndex((item) => item.contains(document.activeElement));
      show(letters);
      if (at >= 0) keepFocus(at);
      tellTotal(letters.length);
    } catch (error) {
      // The next moment is another try.
      seen = null;
      say("letters-total", `They cannot be looked at: ${/** @type {Error} */ (error).message}.`);
    }
  }

  /** @param {number} at the place of the letter whose button had it, and that may be gone */
  function keepFocus(at) {
    if (list.contains(document.activeElement)) return;
    const near = list.children[Math.min(at, list.children.length - 1)];
    (near?.querySelector("button") ?? list.parentElement)?.focus();
  }

  /** @param {number} shown */
  function tellTotal(shown) {
    const hidden = total - shown;
    say(
      "letters-total",
      total === 0
        ? "None."
        : `${plural(total, "dead letter", "dead letters")}${
          hidden > 0 ? `, of which the newest ${shown} are shown` : ""
        }.`,
    );
    if (total === 0 && document.activeElement === all) list.parentElement?.focus();
    all.disabled = total === 0;
  }

  /** @param {Which} which */
  async function replay(which) {
    if (sending) return;
    sending = true;
    say("letters-status", "Sending …");
    say("letters-status", await send(which));
    sending = false;
    await look();
  }

  all.addEventListener("click", () => void replay({}));

  return {
    /** @param {number} dead letters that were ever written: when it changes there is something to see */
    look(dead) {
      const late = total > 0 && !document.hidden && performance.now() - lookedMs > STALE_MS;
      if ((dead === seen && !late) || looking !== null) return;
      seen = dead;
      void look();
    },
  };
}

/**
 * Throws a sentence where there is no answer, or a refusal.
 * @returns {Promise<{ letters: Letter[], total: number }>}
 */
async function newest() {
  const answer = await ask(`/api/dead?limit=${MOST_SHOWN}`).catch(() => null);
  if (answer === null) throw new Error("the collector does not answer");
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(told.error ?? `it answers ${answer.status}`);
  return told;
}

/**
 * @param {Which} which
 * @returns {Promise<string>} what has become of it
 */
async function send(which) {
  try {
    const answer = await ask("/api/dead/replay", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(which),
    });
    const told = await answer.json();
    return answer.ok ? outcome(told) : told.error ?? `It answers ${answer.status}.`;
  } catch {
    return "No answer: the collector is not there.";
  }
}

/** @param {{ stored: number, dead: number, left: number, problems: string[] }} told */
function outcome({ stored, dead, left = 0, problems = [] }) {
  const parts = [
    `${plural(stored, "row is", "rows are")} in ClickHouse`,
    ...(dead > 0 ? [`${plural(dead, "was", "were")} refused again`] : []),
    ...(left > 0 ? [`${plural(left, "is", "are")} left for another try`] : []),
  ];
  return [`${parts.join(", ")}.`, ...problems].join(" ");
}

/**
 * @param {Letter} letter
 * @param {(which: Which) => Promise<void>} replay
 */
function letterItem({ table, id, time, code, message, row, rowLength }, replay) {
  const button = make(
    "button",
    { type: "button", class: "small", "aria-label": `Send again: this row of ${table}` },
    "Send again",
  );
  button.addEventListener("click", () => void replay({ table, ids: [id] }));
  const cut = row.length < rowLength
    ? [make("small", {}, `${exact(rowLength)} characters in all`)]
    : [];
  return make(
    "li",
    {},
    make(
      "p",
      { class: "head" },
      make("time", { datetime: time }, dateTime(Date.parse(time))),
      make("b", {}, table),
      make("span", {}, `code ${code}`),
      button,
    ),
    make("p", { class: "reason" }, message),
    make("code", {}, row),
    ...cut,
  );
}
