/**
 * The way to the collector: requests with the token where it wants one, and what it tells from moment to
 * moment. The token is asked for by a dialog, kept in the session of this tab, sent as a header and
 * nowhere else. An EventSource could send it in the address only, so events are read over fetch.
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
 * @returns {Promise<Response>} rejects where there is no answer
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

// ── Server-sent events. Comes again by itself, at first soon and then every few seconds; silence counts
// as an end, too.

/** A moment comes every second; a slow host may need some. */
const SILENT_MS = 6000;
/** Viewers are let go where settings change or another process takes over: soon there is word again. */
const BEAR_MS = 2000;
const AGAIN_MS = { first: 500, most: 8000 };

/**
 * Cuts a stream of text into events.
 * @param {(name: string, data: string) => void} onEvent
 * @returns {(text: string) => void} to be given the text as it comes
 */
export function createParser(onEvent) {
  let rest = "";
  return (text) => {
    const events = (rest + text).split("\n\n");
    rest = events.pop() ?? "";
    for (const event of events) {
      const [, name = "", data = ""] = /^event: (\w+)\ndata: (.*)$/s.exec(event) ?? [];
      if (name !== "") onEvent(name, data);
    }
  };
}

/**
 * @typedef {object} Listeners
 * @property {(name: string, data: string) => void} onEvent
 * @property {() => void} onRefused the collector wants a (better) token; `again` is to be called then
 * @property {(why: string) => void} onGone there is no answer, or no more; called at each attempt after a while
 */

/**
 * @param {Listeners} listeners
 * @returns {() => void} tries again at once
 */
export function follow({ onEvent, onRefused, onGone }) {
  let failures = 0;
  let heardMs = performance.now();
  /** @type {AbortController | null} */
  let current = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;

  async function run() {
    clearTimeout(timer);
    current?.abort();
    const abort = new AbortController();
    current = abort;
    const why = await read(abort).catch(() => "it does not answer");
    // The timer is that of the attempt that has taken this one's place.
    if (current !== abort) return;
    clearTimeout(timer);
    if (why === null) return onRefused();
    if (performance.now() - heardMs > BEAR_MS) onGone(why);
    const most = Math.min(AGAIN_MS.most, AGAIN_MS.first * 2 ** failures++);
    timer = setTimeout(run, most * (0.5 + Math.random() / 2));
  }

  /**
   * @param {AbortController} abort
   * @returns {Promise<string | null>} why it ended; null where a token is wanted
   */
  async function read(abort) {
    const listen = () => {
      clearTimeout(timer);
      timer = setTimeout(() => abort.abort(), SILENT_MS);
    };
    listen();
    const answer = await ask("/api/live", { signal: abort.signal });
    if (answer.status === 401) return null;
    if (!answer.ok || answer.body === null) {
      const { error = `it answers ${answer.status}` } = await answer.json().catch(() => ({}));
      return error;
    }
    const parse = createParser((name, data) => {
      failures = 0;
      heardMs = performance.now();
      try {
        onEvent(name, data);
      } catch (error) {
        // A fault of the page is none of the connection, and no reason for another one.
        reportError(error);
      }
    });
    const decoder = new TextDecoder();
    const reader = answer.body.getReader();
    while (true) {
      const { done, value } = await reader.read();
      if (done) return "it has ended the connection";
      listen();
      parse(decoder.decode(value, { stream: true }));
    }
  }

  const again = () => {
    failures = 0;
    void run();
  };
  again();
  return again;
}
