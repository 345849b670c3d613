/**
 * The playground: an event is edited, sent, answered, and read back as ClickHouse has it; with the
 * line for the shell that does the same.
 */
// @ts-check
/// <reference lib="dom" />
import { byId, make, mark, say } from "./dom.js";
import { exact, millis, plural } from "./format.js";
import { ask, token } from "./stream.js";

const LOOK_AGAIN_MS = { first: 300, most: 3000 };
const LOOK_FOR_MS = 20_000;
/** Rows of other tables cannot be read back; the answer can say that they are stored. */
const WAIT_S = 10;

/** Without `crypto.randomUUID`, which a page has only where it is served securely. */
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4}).(.{3}).(.{3})(.{12})$/, "$1-$2-4$3-8$4-$5");
}

/** @returns {{ offer(about: import("../recorder.ts").About): void }} */
export function createPlayground() {
  /** @type {HTMLTextAreaElement} */
  const body = byId("event");
  /** @type {HTMLSelectElement} */
  const target = byId("target");
  /** @type {HTMLInputElement} */
  const other = byId("other-table");
  const curl = byId("curl");
  let turn = 0;

  const path = () => {
    const table = target.value === "*" ? other.value.trim() : target.value;
    return table === "" ? "/events" : `/events/${encodeURIComponent(table)}`;
  };
  const showCurl = () => {
    const sent = { path: path(), body: body.value, origin: location.origin };
    say("copied", "");
    say(curl, curlLine({ ...sent, withToken: token() !== "" }));
  };
  const changed = () => {
    byId("other-table-field").hidden = target.value !== "*";
    showCurl();
  };
  const fresh = () => {
    body.value = exampleEvent(newId());
    showCurl();
  };

  async function send() {
    const mine = ++turn;
    const isEvent = path() === "/events";
    const { body: sent, id, eventType } = isEvent
      ? withId(body.value, newId)
      : { body: body.value, id: null, eventType: "" };
    body.value = sent;
    showCurl();
    showRow("", null);
    const beganMs = performance.now();
    try {
      const answer = await ask(path(), {
        method: "POST",
        body: sent,
        headers: {
          "content-type": "application/json",
          ...(isEvent ? {} : { prefer: `wait=${WAIT_S}` }),
        },
      });
      const text = await answer.text();
      if (mine !== turn) return;
      const took = millis(performance.now() - beganMs);
      showAnswer(answer.ok, `${answer.status} ${answer.statusText} after ${took}`, text);
      if (!answer.ok) return;
      if (!isEvent) return tellOfTable(text);
      if (id === null) return showRow("Send one event with an id to see its row.", null);
    } catch {
      if (mine === turn) showAnswer(false, "No answer: the collector is not there.", "");
      return;
    }
    await readBack({ id, eventType }, beganMs, () => mine === turn);
  }

  byId("playground-form").addEventListener("submit", (event) => {
    event.preventDefault();
    void send();
  });
  byId("fresh").addEventListener("click", fresh);
  byId("copy-curl").addEventListener("click", async () => {
    showCurl();
    const copied = await copyText(curl.textContent ?? "", curl);
    say("copied", copied ? "Copied." : "Selected: copy it with your keyboard.");
  });
  body.addEventListener("input", showCurl);
  other.addEventListener("input", showCurl);
  target.addEventListener("change", changed);
  fresh();

  return {
    offer({ table, tables, takesEvents }) {
      byId("playground").hidden = !takesEvents;
      const chosen = target.value;
      const named = tables.filter((name) => !/[*?]/.test(name));
      const open = named.length < tables.length;
      target.replaceChildren(
        make("option", { value: "" }, `/events → ${table}`),
        ...named.map((name) => make("option", { value: name }, `/events/${name}`)),
        ...(open ? [make("option", { value: "*" }, "/events/… another table")] : []),
      );
      target.value = chosen;
      if (target.selectedIndex < 0) target.selectedIndex = 0;
      changed();
    },
  };
}

/**
 * @param {boolean} good
 * @param {string} status
 * @param {string} text
 */
function showAnswer(good, status, text) {
  mark(byId("answer-status"), "good", String(good));
  say("answer-status", status.replace(/ {2,}/g, " "));
  say("answer", text.trim());
}

/**
 * @param {string} told
 * @param {Record<string, unknown> | null} row
 */
function showRow(told, row) {
  say("row-status", told);
  byId("row").replaceChildren(
    ...Object.entries(row ?? {}).flatMap(([name, value]) => [
      make("dt", {}, name),
      make("dd", {}, typeof value === "string" ? value : JSON.stringify(value)),
    ]),
  );
}

/** @param {string} text the answer to rows of another table */
function tellOfTable(text) {
  const { ack, accepted, dead = 0 } = JSON.parse(text);
  const rows = plural(accepted, "row", "rows");
  const fate = dead === 0
    ? `ClickHouse has ${accepted === 1 ? "it" : `the ${rows}`}.`
    : `ClickHouse has ${exact(accepted - dead)} of ${rows}, and refused ${exact(dead)} for good: ` +
      "see the dead letters.";
  showRow(
    ack === "clickhouse"
      ? fate
      : `Taken: ${rows}, not in ClickHouse within ${WAIT_S} s; on the way there.`,
    null,
  );
}

/** @typedef {{ id: string, eventType: string }} Sought */

/**
 * @param {Sought} sought
 * @param {number} sinceMs
 * @param {() => boolean} wanted nothing else was sent meanwhile
 */
async function readBack(sought, sinceMs, wanted) {
  const passedMs = () => performance.now() - sinceMs;
  for (
    let waitMs = LOOK_AGAIN_MS.first;
    wanted();
    waitMs = Math.min(LOOK_AGAIN_MS.most, 1.5 * waitMs)
  ) {
    showRow("Looking for its row …", null);
    const { row, problem } = await findRow(sought);
    if (!wanted()) return;
    if (row !== null) return showRow(`In ClickHouse after ${millis(passedMs())}:`, row);
    if (passedMs() > LOOK_FOR_MS) {
      return showRow(problem || "ClickHouse does not have it yet; it is kept and sent.", null);
    }
    await new Promise((resolve) => setTimeout(resolve, waitMs));
  }
}

/**
 * @param {Sought} sought its type lets ClickHouse read less
 * @returns {Promise<{ row: Record<string, unknown> | null, problem: string }>}
 */
async function findRow({ id, eventType }) {
  const asked = new URLSearchParams({ id, limit: "1", ...(eventType === "" ? {} : { eventType }) });
  const answer = await ask(`/api/events?${asked}`).catch(() => null);
  if (answer === null) return { row: null, problem: "The collector does not answer any more." };
  const { events = [], error = "" } = await answer.json().catch(() => ({}));
  return { row: events[0] ?? null, problem: error };
}

// ── What is sent, and the same as a line for the shell.

/** A quote within single quotes of a shell: end them, a quote by itself, begin them. */
const QUOTE = `'\\''`;

/**
 * @param {{ path: string, body: string, origin: string, withToken: boolean }} sent
 * @returns {string} the token itself is never in it
 */
export function curlLine({ path, body, origin, withToken }) {
  const token = withToken ? ` -H "Authorization: Bearer $SHISHI_TOKEN"` : "";
  return `curl${token} -d '${body.replaceAll("'", QUOTE)}' ${origin}${path}`;
}

/**
 * An event with an id, by which its row is found again; what is not one event is left alone.
 * @param {string} body
 * @param {() => string} newId
 * @returns {{ body: string, id: string | null, eventType: string }}
 */
export function withId(body, newId) {
  /** @type {unknown} */
  let event = null;
  try {
    event = JSON.parse(body);
  } catch {
    // The collector says what is wrong with it.
  }
  if (event === null || typeof event !== "object" || Array.isArray(event)) {
    return { body, id: null, eventType: "" };
  }
  const { id, eventType } = /** @type {{ id?: unknown, eventType?: unknown }} */ (event);
  const type = typeof eventType === "string" ? eventType : "";
  if (id !== undefined) return { body, id: typeof id === "string" ? id : null, eventType: type };
  const added = newId();
  // Put in as text, so that every digit of a long number stays.
  const opened = body.replace(
    /^\s*\{/,
    (brace) => `${brace}${brace.endsWith("\n") ? "" : "\n"}  "id": "${added}",`,
  );
  return {
    body: isJson(opened) ? opened : body,
    id: isJson(opened) ? added : null,
    eventType: type,
  };
}

/** @param {string} text */
function isJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** @param {string} id */
export function exampleEvent(id) {
  return `{
  "id": "${id}",
  "eventType": "click",
  "userId": "u1",
  "properties": { "page": "/garden", "price": 9.90 }
}`;
}

/**
 * @param {string} text
 * @param {HTMLElement} shown the element that shows it: selected where it cannot be copied
 * @returns {Promise<boolean>} whether it is in the clipboard
 */
async function copyText(text, shown) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    globalThis.getSelection()?.selectAllChildren(shown);
    return false;
  }
}
