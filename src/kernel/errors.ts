/**
 * What went wrong, in words. Whatever was thrown comes in; one line for people goes out. The runtimes
 * word the same failure differently, with advice for programmers or the whole URL in it; an operator
 * wants the two words that matter.
 */

const NETWORK_WORDS: readonly (readonly [RegExp, string])[] = [
  [/ECONNREFUSED|connection refused/i, "connection refused"],
  [/ENOTFOUND|EAI_AGAIN|dns error|failed to lookup/i, "host not found"],
  [/ETIMEDOUT|connection timed out/i, "connection timed out"],
  [/EHOSTUNREACH|ENETUNREACH|no route to host|unreachable/i, "host unreachable"],
  [/ECONNRESET|EPIPE|connection (?:was )?(?:closed|reset)|broken pipe/i, "connection broken off"],
];
const DEEPEST_CAUSE = 5;

/** In its own words. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The system's code (`ENOSPC`, …), `""` where there is none. */
export function codeOf(error: unknown): string {
  const code = (error as { code?: unknown } | null | undefined)?.code;
  return typeof code === "string" ? code : "";
}

/** A file or folder that is not there is no error where `nothing` stands for it; any other is thrown. */
export function nothingThere<T>(error: unknown, nothing: T): T {
  if (codeOf(error) === "ENOENT") return nothing;
  throw error;
}

/** One line, the system's code first. */
export function reasonOf(error: unknown): string {
  const text = messageOf(error);
  const code = codeOf(error);
  return (code === "" || text.includes(code) ? text : `${code}: ${text}`).replace(/\s+/g, " ");
}

/** As `reasonOf`, without the path: for clients, which need not know this host. */
export function reasonWithoutPath(error: unknown): string {
  return reasonOf(error).replace(/, \w+ '.*$/, "");
}

/** An error with plain words where the failure is a known one of the network, else what was given. */
export function plainNetworkError(error: unknown): unknown {
  if (!(error instanceof Error) || error.name === "AbortError") return error;
  const text = chainOf(error).map((at) => `${at.message} ${codeOf(at)}`).join(" ");
  const known = NETWORK_WORDS.find(([pattern]) => pattern.test(text));
  return known === undefined ? error : new Error(known[1]);
}

/** One line of at most 300 characters; the useful part may be in `cause`. */
export function lineOf(error: unknown): string {
  const parts = chainOf(error).slice(0, 3).map((at) =>
    codeOf(at) === "" ? at.message : `${at.message} (${codeOf(at)})`
  );
  const text = parts.length > 0 ? parts.join(": ") : String(error);
  return text.replace(/\s+/g, " ").trim().slice(0, 300) || "the connection failed";
}

/** An error and its causes, outermost first; empty for what is no error. */
function chainOf(error: unknown): Error[] {
  const chain: Error[] = [];
  for (let at = error; at instanceof Error && chain.length < DEEPEST_CAUSE; at = at.cause) {
    chain.push(at);
  }
  return chain;
}
