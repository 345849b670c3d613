/**
 * One connection to one NATS server, for remote control and for sources. It never throws: a connection
 * that fails is an outcome, one that ends says why through `closed`.
 *
 * The library's own reconnecting stays off. It gives up after the same authentication error twice,
 * drops what is published meanwhile without a word, and waits for a frozen peer's buffer to drain
 * before it lets go. Each connection here is a fresh one, and the next is made by what uses it.
 */

import {
  type Authenticator,
  connect,
  credsAuthenticator,
  DebugEvents,
  headers,
  type Msg,
  type NatsConnection,
  nkeyAuthenticator,
  tokenAuthenticator,
  usernamePasswordAuthenticator,
} from "nats.ws";
import { messageOf } from "./errors.ts";
import { done, failed, type Result } from "./result.ts";
import { type Clock, sleep, within } from "./time.ts";

/**
 * A frozen server is noticed after two pings without an answer: 8 to 12 s. Two and not one, so that a
 * process that was itself held up for a while does not take that for the server's silence.
 */
const PING_INTERVAL_MS = 4_000;
const MAX_PINGS_OUT = 2;
const SILENT_S = MAX_PINGS_OUT * PING_INTERVAL_MS / 1000;
const CLOSE_WAIT_MS = 500;
/** What a runtime says in front of the reason; the server is named already. */
const PREAMBLE =
  /^(?:WebSocket connection to '[^']*' failed|NetworkError: failed to connect to WebSocket): /;

/** One way to authenticate; seeds and credentials as text, already read from their files. */
export type NatsAuth =
  | { readonly kind: "none" }
  | { readonly kind: "token"; readonly token: string }
  | { readonly kind: "user"; readonly user: string; readonly password: string }
  /** `setting`: what a bad one is called by; `nats-nkey` and `nats-creds` unless given. */
  | { readonly kind: "nkey"; readonly seed: string; readonly setting?: string }
  | { readonly kind: "creds"; readonly creds: string; readonly setting?: string };

export interface DialOptions {
  /** `nats://`, `tls://`, `ws://` or `wss://`. */
  readonly server: string;
  readonly auth: NatsAuth;
  /** How the server's monitoring shows this client. */
  readonly name: string;
  /** For the whole way from the socket to the server's first answer. */
  readonly timeoutMs: number;
  /** Absent: the runtime's own WebSocket, for `ws://` and `wss://` alone. */
  readonly openSocket?: OpenSocket | undefined;
  /** Gives up at once. */
  readonly signal?: AbortSignal;
}
/** Opens the socket of an address; may throw. It knows which authorities are trusted. */
export type OpenSocket = (url: string) => WebSocket;

/** A message that arrived. */
export interface Message {
  readonly subject: string;
  readonly payload: Uint8Array;
  /** Where an answer goes; `""` when none is wanted. */
  readonly reply: string;
  /** The header's first value, or `""`. */
  header(name: string): string;
  /** The server says that the subject of the request has no listener. */
  readonly noResponders: boolean;
}

/**
 * A live connection. No library shows through, so everything above can be tried with a connection made
 * of nothing.
 */
export interface Wire {
  /** `host:port`. */
  readonly server: string;
  /** What the server says of itself. `asksWho`: it lets in no client without credentials. */
  readonly about?: { readonly version: string; readonly asksWho: boolean };
  /** Why it ended. Resolves exactly once, never rejects. */
  readonly closed: Promise<string>;
  /** `onMessage` must not throw. */
  subscribe(subject: string, onMessage: (message: Message) => void): void;
  /** @returns false when it certainly was not sent: closed, or larger than the server takes. */
  publish(
    subject: string,
    payload: Uint8Array,
    reply?: string,
    headers?: Readonly<Record<string, string>>,
  ): boolean;
  /** @returns true once the server has everything that was published; false at `waitMs`. */
  flush(waitMs: number): Promise<boolean>;
  /** Ends the connection; waits for the socket at most `CLOSE_WAIT_MS`. */
  close(): Promise<void>;
}

/** A live connection as the library has it, for what a `Wire` does not do. */
export interface NatsLink {
  readonly connection: NatsConnection;
  /** `host:port`. */
  readonly server: string;
  /** Why it ended. Resolves exactly once, never rejects. */
  readonly closed: Promise<string>;
  /** As that of a `Wire`. */
  close(): Promise<void>;
}

/** Where a NATS server is. */
export interface ServerAddress {
  /** Without user information; may be logged. */
  readonly url: string;
  /** `host:port`, for messages. */
  readonly name: string;
  /** From `nats://user:password@host`, where given. */
  readonly user: string | null;
  readonly password: string | null;
}

/** What is used where an address names no port. */
const PORTS: Readonly<Record<string, string>> = {
  "nats:": "4222",
  "tls:": "4222",
  "ws:": "80",
  "wss:": "443",
};

/**
 * The scheme must be there: the library takes `host:port` as wss without a word. A problem repeats no
 * secret.
 */
export function parseServer(text: string): Result<ServerAddress> {
  const url = URL.canParse(text) ? new URL(text) : null;
  const usual = url === null ? undefined : PORTS[url.protocol];
  if (url === null || usual === undefined || url.hostname === "") {
    return failed(
      `nats-url: expected nats://host:port, tls://, ws:// or wss://, got ${shown(text)}`,
    );
  }
  const user = url.username === "" ? null : decodeURIComponent(url.username);
  const password = url.password === "" ? null : decodeURIComponent(url.password);
  const port = url.port === "" ? usual : url.port;
  url.username = "";
  url.password = "";
  return done({ url: url.href, name: `${url.hostname}:${port}`, user, password });
}

/** What stands before an `@` may be a password. */
function shown(text: string): string {
  return JSON.stringify(text.replace(/[^/]*@/, "…@"));
}

/** As `openLink`. */
export async function dial(
  options: DialOptions,
  clock: Clock,
  onTrouble: (what: string) => void,
): Promise<Result<Wire>> {
  const opened = await openLink(options, clock, onTrouble);
  return opened.ok ? done(wireOf(opened.value, clock)) : opened;
}

/**
 * A problem names the server and never a secret.
 * @param onTrouble takes what the server complains about while the connection lives.
 */
export async function openLink(
  options: DialOptions,
  clock: Clock,
  onTrouble: (what: string) => void,
): Promise<Result<NatsLink>> {
  const parsed = parseServer(options.server);
  if (!parsed.ok) return parsed;
  const address = parsed.value;
  const refused = (problem: string) => failed(`${address.name}: ${problem}`);
  const auth = authenticator(options.auth, address);
  if (!auth.ok) return refused(auth.problem);

  const opening = opened(address.url, options.openSocket ?? ((url) => new WebSocket(url)));
  if (!opening.ok) return refused(opening.problem);
  const socket = opening.value;
  // nats.ws overwrites `onclose`; a listener of its own sees the end of a socket that never opened.
  const ended = new Promise<void>((resolve) => {
    socket.addEventListener("close", () => resolve(), { once: true });
  });
  const complaint = overhear(socket);
  // TLS over TCP began before the library heard of the server: nothing is left for it to ask for.
  const encrypted = !address.url.startsWith("ws:");
  const wsOptions = { wsFactory: () => Promise.resolve({ socket, encrypted }) };
  const connecting = connect({
    // It knows the websocket's schemes alone, and is given the socket.
    servers: [address.url.replace(/^(nats|tls):/, "ws:")],
    name: options.name,
    ...(auth.value === null ? {} : { authenticator: auth.value }),
    timeout: options.timeoutMs,
    reconnect: false,
    ignoreClusterUpdates: true,
    noAsyncTraces: true,
    pingInterval: PING_INTERVAL_MS,
    maxPingOut: MAX_PINGS_OUT,
    ...wsOptions,
  });
  const over = givenUp(ended, options.signal, clock);
  try {
    const connection = await Promise.race([connecting, over.failure]);
    return done(linkOf(connection, socket, ended, address, clock, onTrouble));
  } catch (error) {
    socket.close();
    await within(clock, CLOSE_WAIT_MS, ended, undefined);
    return refused(connectFailure(complaint.said(), error, options.timeoutMs));
  } finally {
    over.forget();
    complaint.stop();
  }
}

function linkOf(
  connection: NatsConnection,
  socket: WebSocket,
  ended: Promise<void>,
  address: ServerAddress,
  clock: Clock,
  onTrouble: (what: string) => void,
): NatsLink {
  // The end of a connection that is silent comes without an error.
  let silent = false;
  void watchStatus(connection, onTrouble, () => silent = true);
  return {
    connection,
    server: address.name,
    closed: connection.closed().then(async (error) => {
      // What was silent is said a moment later.
      if (text(error) === "") await sleep(clock, 0);
      return text(error) || (silent ? `no answer for ${SILENT_S} s` : "connection closed");
    }),
    async close() {
      await within(clock, CLOSE_WAIT_MS, Promise.allSettled([connection.close()]), undefined);
      socket.close();
      await within(clock, CLOSE_WAIT_MS, ended, undefined);
    },
  };
}

function wireOf(link: NatsLink, clock: Clock): Wire {
  const { connection, server, closed } = link;
  return {
    server,
    about: {
      version: String(connection.info?.version),
      asksWho: connection.info?.auth_required === true,
    },
    closed,
    subscribe(subject, onMessage) {
      if (connection.isClosed()) return;
      connection.subscribe(subject, {
        callback: (error, message) => {
          if (error === null) onMessage(received(message));
        },
      });
    },
    publish(subject, payload, reply, fields) {
      if (connection.isClosed()) return false;
      try {
        const carried = headers();
        for (const [name, value] of Object.entries(fields ?? {})) carried.set(name, value);
        connection.publish(subject, payload, {
          ...(reply === undefined ? {} : { reply }),
          ...(fields === undefined ? {} : { headers: carried }),
        });
        return true;
      } catch {
        return false;
      }
    },
    async flush(waitMs) {
      if (connection.isClosed()) return false;
      // A connection that ends leaves its flush pending for ever.
      const gone = connection.closed().then(() => false);
      const flushed = connection.flush().then(() => true, () => false);
      return await within(clock, waitMs, Promise.race([flushed, gone]), false);
    },
    close: () => link.close(),
  };
}

/** @param onSilence is called when pings are not answered. */
async function watchStatus(
  connection: NatsConnection,
  onTrouble: (what: string) => void,
  onSilence: () => void,
): Promise<void> {
  for await (const status of connection.status()) {
    if (status.type === DebugEvents.StaleConnection) onSilence();
    if (status.type !== "error") continue;
    const denied = status.permissionContext;
    onTrouble(
      denied === undefined
        ? `the server says ${String(status.data)}`
        : `the server does not permit this user the ${denied.operation} on ${denied.subject}`,
    );
  }
}

function received(message: Msg): Message {
  const status = message.headers?.code ?? 0;
  return {
    subject: message.subject,
    payload: message.data,
    reply: message.reply ?? "",
    header: (name) => message.headers?.get(name) ?? "",
    noResponders: status === 503 && message.data.length === 0,
  };
}

/** `failure` rejects when the socket closed or the caller gave up: the library waits for its timeout. */
function givenUp(
  ended: Promise<void>,
  signal: AbortSignal | undefined,
  clock: Clock,
): { readonly failure: Promise<never>; forget(): void } {
  const { promise, reject } = Promise.withResolvers<never>();
  const abort = () => reject(new Error("given up"));
  let cancel = () => {};
  let forgotten = false;
  void ended.then(() => {
    if (forgotten) return;
    // The error that came with the close says more, and the library needs a moment to tell it.
    cancel = clock.after(100, () => reject(new Error("the server closed the connection")));
  });
  if (signal?.aborted) abort();
  signal?.addEventListener("abort", abort, { once: true });
  return {
    failure: promise,
    forget() {
      forgotten = true;
      cancel();
      signal?.removeEventListener("abort", abort);
    },
  };
}

function opened(url: string, open: OpenSocket): Result<WebSocket> {
  try {
    const socket = open(url);
    socket.binaryType = "arraybuffer";
    // Closing, the library polls until this is 0; behind a frozen server it never is.
    Object.defineProperty(socket, "bufferedAmount", { value: 0, configurable: true });
    return done(socket);
  } catch (error) {
    return failed(text(error) || "cannot open a socket");
  }
}

function authenticator(
  auth: NatsAuth,
  address: ServerAddress,
): Result<Authenticator | null> {
  const encoder = new TextEncoder();
  switch (auth.kind) {
    case "none":
      if (address.user === null) return done(null);
      return done(
        address.password === null
          ? tokenAuthenticator(address.user)
          : usernamePasswordAuthenticator(address.user, address.password),
      );
    case "token":
      return done(tokenAuthenticator(auth.token));
    case "user":
      return done(usernamePasswordAuthenticator(auth.user, auth.password));
    case "nkey":
      return rehearsed(
        nkeyAuthenticator(encoder.encode(auth.seed.trim())),
        `${auth.setting ?? "nats-nkey"}: expected a user's seed (SU…), got something else`,
      );
    case "creds":
      return rehearsed(
        credsAuthenticator(encoder.encode(`${auth.creds.replaceAll("\r\n", "\n").trim()}\n`)),
        `${auth.setting ?? "nats-creds"}: expected a credentials file (a JWT and a seed, each ` +
          "between lines of -----)",
      );
  }
}

/** Signs once for nothing: a key that cannot sign is found before the server is asked. */
function rehearsed(authenticator: Authenticator, problem: string): Result<Authenticator> {
  try {
    authenticator("rehearsal");
    return done(authenticator);
  } catch {
    return failed(problem);
  }
}

/** @param complaint the server's own words, or `""`. */
function connectFailure(complaint: string, error: unknown, timeoutMs: number): string {
  if (/authorization violation/i.test(complaint)) return "the server refuses these credentials";
  if (/authentication expired/i.test(complaint)) return "these credentials have expired";
  if (complaint !== "") return `the server says ${complaint}`;
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  if (code === "TIMEOUT") return `no answer within ${timeoutMs} ms`;
  return text(error).replace(PREAMBLE, "") || "cannot connect";
}

/**
 * Listens for `-ERR '…'` while the connection is being made. Where the socket's end comes right behind
 * it, the library on one of the runtimes reports the end alone, and a wrong password looks like a
 * broken network.
 */
function overhear(socket: WebSocket): { said(): string; stop(): void } {
  let complaint = "";
  const listen = ({ data }: MessageEvent) => {
    if (!(data instanceof ArrayBuffer) || data.byteLength > 1024) return;
    complaint = /^-ERR '([^']*)'/.exec(new TextDecoder().decode(data))?.[1] ?? complaint;
  };
  socket.addEventListener("message", listen);
  return { said: () => complaint, stop: () => socket.removeEventListener("message", listen) };
}

/** `""` where nothing was thrown. */
function text(error: unknown): string {
  return error === undefined || error === null ? "" : messageOf(error);
}
