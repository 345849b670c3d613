/**
 * What a failed `fetch` says to people. Each runtime words the same failure in its own way, with
 * advice for programmers or the whole URL in it; an operator wants the two words that matter.
 */

const WORDS: readonly (readonly [RegExp, string])[] = [
  [/ECONNREFUSED|connection refused/i, "connection refused"],
  [/ENOTFOUND|EAI_AGAIN|dns error|failed to lookup/i, "host not found"],
  [/ETIMEDOUT|connection timed out/i, "connection timed out"],
  [/EHOSTUNREACH|ENETUNREACH|no route to host|unreachable/i, "host unreachable"],
  [/ECONNRESET|EPIPE|connection (?:was )?(?:closed|reset)|broken pipe/i, "connection broken off"],
];
const DEEPEST_CAUSE = 5;

/** An error with plain words where the failure is a known one, else what was given. */
export function plainNetworkError(error: unknown): unknown {
  if (!(error instanceof Error) || error.name === "AbortError") return error;
  const text = textOf(error);
  const known = WORDS.find(([pattern]) => pattern.test(text));
  return known === undefined ? error : new Error(known[1]);
}

function textOf(error: Error): string {
  const parts: string[] = [];
  for (let at: unknown = error, depth = 0; at instanceof Error && depth < DEEPEST_CAUSE; depth++) {
    parts.push(at.message, String((at as { code?: unknown }).code ?? ""));
    at = at.cause;
  }
  return parts.join(" ");
}
