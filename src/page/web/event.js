/** What the playground sends, and the same as a line for the shell. */
// @ts-check

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
