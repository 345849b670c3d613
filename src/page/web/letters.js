/** The newest dead letters: why, when, which row; sent again by a button, one or all of them. */
// @ts-check
/// <reference lib="dom" />
import { byId, make, say } from "./dom.js";
import { clockTime, plural } from "./format.js";
import { ask } from "./login.js";

/** @typedef {{ table: string, id: string, time: string, code: number, message: string, row: string }} Letter */

const MOST_SHOWN = 50;

/** @returns {{ look(dead: number): void }} */
export function createLetters() {
  let seen = -1;

  async function look() {
    try {
      const answer = await ask(`/api/dead?limit=${MOST_SHOWN}`);
      const { letters = [], total = 0, error = "" } = await answer.json();
      if (error !== "") return say("letters-status", error);
      show(letters, total);
    } catch {
      // The page says by itself that nobody answers; the next moment that it is told is another try.
      seen = -1;
    }
  }

  /**
   * @param {Letter[]} letters
   * @param {number} total
   */
  function show(letters, total) {
    byId("letters-list").replaceChildren(...letters.map((letter) => letterItem(letter, replay)));
    const hidden = total - letters.length;
    say(
      "letters-total",
      total === 0
        ? "None: ClickHouse has refused no row for good."
        : `${plural(total, "dead letter", "dead letters")}${
          hidden > 0 ? `, of which the newest ${letters.length} are shown` : ""
        }.`,
    );
    /** @type {HTMLButtonElement} */
    const all = byId("replay-all");
    all.disabled = total === 0;
  }

  /** @param {{ table?: string, ids?: string[] }} which */
  async function replay(which) {
    say("letters-status", "Sending …");
    try {
      const answer = await ask("/api/dead/replay", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(which),
      });
      const told = await answer.json();
      say(
        "letters-status",
        answer.ok ? outcome(told) : told.error ?? `It answers ${answer.status}.`,
      );
    } catch {
      say("letters-status", "No answer: the collector is not there.");
    }
    await look();
  }

  byId("replay-all").addEventListener("click", () => void replay({}));

  return {
    /** @param {number} dead letters that were ever written: when it changes there is something to see */
    look(dead) {
      if (dead === seen) return;
      seen = dead;
      void look();
    },
  };
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
 * @param {(which: { table: string, ids: string[] }) => Promise<void>} replay
 */
function letterItem({ table, id, time, code, message, row }, replay) {
  const button = make(
    "button",
    { type: "button", class: "small", "aria-label": `Send again: this row of ${table}` },
    "Send again",
  );
  button.addEventListener("click", () => void replay({ table, ids: [id] }));
  const ms = Date.parse(time);
  return make(
    "li",
    {},
    make(
      "p",
      { class: "head" },
      make("time", { datetime: time }, `${time.slice(0, 10)} ${clockTime(ms)}`),
      make("b", {}, table),
      make("span", {}, `code ${code}`),
      button,
    ),
    make("p", { class: "reason" }, message),
    make("code", {}, row),
  );
}
