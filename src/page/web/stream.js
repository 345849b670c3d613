/**
 * Server-sent events over fetch, for an EventSource can send no token but in the address. Comes again
 * by itself, at first soon and then every few seconds; silence counts as an end, too.
 */
// @ts-check
/// <reference lib="dom" />
import { ask } from "./login.js";

/** A moment is told every second; a slow host may need some. */
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
 * @property {(why: string) => void} onGone nobody answers, or no more; told at each attempt after a while
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
