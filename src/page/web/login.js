/**
 * Requests to the collector, with the token where it wants one. The token is asked for by a dialog,
 * kept in the session of this tab, sent as a header and nowhere else.
 */
// @ts-check
/// <reference lib="dom" />
import { byId, mark, say } from "./dom.js";

const KEY = "shishi-token";
/** A replay takes the longest; without a bound a network that has changed would hold up all that follow. */
const ANSWER_WITHIN_MS = 60_000;

export function token() {
  return sessionStorage.getItem(KEY) ?? "";
}

/** @param {string} value */
function keep(value) {
  if (value === "") sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, value);
  showToken();
}

/** With one there are views that a link leads to in vain: it cannot carry the token. */
function showToken() {
  byId("forget").hidden = token() === "";
  mark(document.documentElement, "token", String(token() !== ""));
}

/**
 * @param {string} path
 * @param {RequestInit} [init]
 * @returns {Promise<Response>} rejects where nobody answers
 */
export function ask(path, init = {}) {
  const headers = new Headers(init.headers);
  if (token() !== "") headers.set("authorization", `Bearer ${token()}`);
  const signal = init.signal ?? AbortSignal.timeout(ANSWER_WITHIN_MS);
  return fetch(path, { ...init, signal, headers, cache: "no-store" });
}

/**
 * Shows the dialog; `entered` is called when a token was given.
 * @param {() => void} entered
 */
export function prepareLogin(entered) {
  /** @type {HTMLDialogElement} */
  const dialog = byId("login");
  /** @type {HTMLInputElement} */
  const input = byId("token");
  byId("login-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const given = input.value.trim();
    if (given === "") return;
    keep(given);
    input.value = "";
    say("login-problem", "");
    dialog.close();
    entered();
  });
  byId("open-login").addEventListener("click", () => dialog.showModal());
  byId("forget").addEventListener("click", () => {
    keep("");
    location.reload();
  });
  showToken();
}

/** The collector has refused: no token, or one that it does not know. */
export function askForToken() {
  const known = token() !== "";
  keep("");
  say("login-problem", known ? "The collector does not know this token." : "");
  /** @type {HTMLDialogElement} */
  const dialog = byId("login");
  if (!dialog.open) dialog.showModal();
}
