/**
 * NATS server addresses. Pure. Accepts `ws://` and `wss://` alone: the library takes `host:port` as
 * wss without a word, and a `nats://` port does not speak WebSocket.
 */

export interface ServerAddress {
  /** Without user information; may be logged. */
  readonly url: string;
  /** `host:port`, for messages. */
  readonly name: string;
  /** From `ws://user:password@host`, where given. */
  readonly user: string | null;
  readonly password: string | null;
}

/** @returns the address, or what is wrong with it (without repeating a secret). */
export function parseServer(text: string): ServerAddress | { readonly problem: string } {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url === null || (url.protocol !== "ws:" && url.protocol !== "wss:") || url.hostname === "") {
    return { problem: `nats-url: expected ws://host:port or wss://host:port, got ${shown(text)}` };
  }
  const user = url.username === "" ? null : decodeURIComponent(url.username);
  const password = url.password === "" ? null : decodeURIComponent(url.password);
  const port = url.port === "" ? (url.protocol === "wss:" ? "443" : "80") : url.port;
  url.username = "";
  url.password = "";
  return { url: url.href, name: `${url.hostname}:${port}`, user, password };
}

/** What stands before an `@` may be a password. */
function shown(text: string): string {
  return JSON.stringify(text.replace(/[^/]*@/, "…@"));
}
