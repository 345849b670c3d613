/**
 * One HTTP server for both runtimes. Promises: `stop()` takes no new connection and resolves when the
 * requests under way are answered; `kill()` waits for them no longer, and cuts them off where the
 * runtime can still do that. The end of the process does it in any case.
 *
 * Neither runtime can change the certificate of a server. So it is renewed by a second server on the
 * same port: all new connections go to that one (`shared_port.ts`), and the first one retires. While it
 * does, its answers ask clients to come on another connection next time, so no client finds a connection
 * closed that it was about to use; after that it stops as ever. For this the port must be one that can be
 * shared. That another program listens there is noticed all the same: the port is listened on alone for a
 * moment first.
 *
 * With `shared`, other collectors stay on the port. Then new connections cannot be steered, for that would
 * take theirs too: old and new certificate are served side by side until the first server has retired.
 */

import { nodeNet } from "../kernel/builtins.ts";
import { sleep, systemClock, within } from "../kernel/time.ts";
import { bun, deno } from "./host.ts";

/** PEM texts. */
export interface Tls {
  readonly cert: string;
  readonly key: string;
  /** Clients are asked for certificates of these authorities; `client_certificates.ts` does that. */
  readonly clients?: { readonly ca: string; readonly required: boolean } | null;
}

export interface ServeOptions {
  readonly hostname: string;
  /** 0 = the system chooses. */
  readonly port: number;
  /** A socket in the file system, instead of these two. */
  readonly path?: string;
  /** Another process of this program listens there and goes away soon. */
  readonly reusePort?: boolean;
  /** Other collectors listen there as well, and stay: the system distributes the connections. */
  readonly shared?: boolean;
  readonly tls?: Tls;
  /**
   * A connection on which nothing moves is closed after this, also one that waits for its answer. Of the
   * runtimes one takes more than 255 s for ever, and the other everything. 255 s unless given.
   */
  readonly idleTimeoutMs?: number;
  /**
   * `addressOf` tells the peer's address, such as `127.0.0.1` or `2001:db8::1`; to ask has its price.
   * `subject`: of the client's certificate; null or absent: it has shown none.
   */
  readonly handler: (
    request: Request,
    addressOf: (request: Request) => string,
    subject?: string | null,
  ) => Response | Promise<Response>;
  /** The port stands behind the address: `127.0.0.1:4711`. */
  readonly withPort?: boolean;
  /** Called with what the handler threw; the client gets a bare 500. */
  readonly onError: (error: unknown) => void;
}

/** One server of the runtime. */
export interface Server {
  /** The port that is really listened on. */
  readonly port: number;
  /** Each answer from now on ends its connection, until this is called with `false`. */
  lastAnswers(last: boolean): void;
  stop(): Promise<void>;
  kill(): Promise<void>;
}

export interface Listening extends Server {
  /**
   * New connections get this certificate, those that are open go on. Rejects, and has changed nothing,
   * where there is no TLS or the system cannot listen twice on one port. Not to be called again, nor
   * `alone`, before it has ended.
   */
  renew(tls: Tls): Promise<void>;
  /** Resolves when no server of this process is left on the port from before a `renew`. */
  alone(): Promise<void>;
}

/** The longest that one of the runtimes can time; the other one times nothing. */
const MOST_IDLE_S = 255;

type Start = (options: ServeOptions) => Omit<Server, "lastAnswers">;

/** Throws a sentence that names the address when it cannot be listened on. */
export function serve(options: ServeOptions): Listening {
  const runtime = bun ? BUN : deno ? DENO : null;
  if (runtime === null) throw new Error("this runtime has no HTTP server that Shishi knows");
  const { tls } = options;
  try {
    if (tls !== undefined) return renewable({ ...options, tls }, runtime);
    return {
      ...runtime.start(options),
      renew: () => Promise.reject(new Error("there is no certificate to renew")),
      alone: () => Promise.resolve(),
    };
  } catch (error) {
    throw cannotListen(options, error);
  }
}

/** An error with one sentence that names the address. @param error the runtime's. */
export function cannotListen(
  { hostname, port, path }: Pick<ServeOptions, "hostname" | "port" | "path">,
  error: unknown,
): Error {
  if (path !== undefined) {
    return new Error(`cannot listen on unix:${path}: ${(error as Error).message}`);
  }
  const address = `${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`;
  return new Error(`cannot listen on ${address}: ${reasonOf(error, hostname)}`);
}

/** The runtimes agree on neither class, code nor words. */
function reasonOf(error: unknown, hostname: string): string {
  // Of a name one of them tells whatever error the process met last.
  if (bun !== undefined && hostname !== "localhost" && nodeNet().isIP(hostname) === 0) {
    return "the port is taken or not permitted, or this host has no such address";
  }
  const { name, code, message } = error as { name?: string; code?: string; message?: string };
  const text = `${name} ${code} ${message}`;
  if (/AddrInUse|EADDRINUSE|in use/i.test(text)) return "another program listens there already";
  if (/EADDRNOTAVAIL|EINVAL|assign requested address|failed to lookup/i.test(text)) {
    return "this host has no such address";
  }
  if (/EACCES|PermissionDenied|permission denied/i.test(text)) {
    return "permission denied (ports below 1024 need a privilege)";
  }
  return message ?? String(error);
}

// ── The two runtimes.

/** What a runtime can do. */
interface Runtime {
  start(options: ServeOptions): Server;
  /**
   * Listens for a moment without sharing, which fails where another program listens. @returns the port.
   */
  tryAlone(options: ServeOptions): number;
  /** Whether it can share a port. */
  readonly shares: boolean;
}

const BUN: Runtime = {
  start: withLastAnswers(serveOnBun),
  tryAlone(options) {
    const server = serveOnBun({ ...options, reusePort: false, shared: false });
    void server.kill();
    return server.port;
  },
  shares: true,
};

const DENO: Runtime = {
  start: withLastAnswers(serveOnDeno),
  tryAlone({ hostname, port }) {
    const listener = deno!.listen({ hostname, port });
    listener.close();
    return listener.addr.port;
  },
  // Asked to without the flag, it ends the process.
  shares: deno?.listenDatagram !== undefined,
};

function withLastAnswers(start: Start): (options: ServeOptions) => Server {
  return (options) => {
    const { handler } = options;
    const ending: ServeOptions["handler"] = async (request, addressOf, subject) => {
      const response = await handler(request, addressOf, subject);
      response.headers.set("connection", "close");
      return response;
    };
    // Changed in place: one more call in between would cost every request.
    const served: { -readonly [Name in keyof ServeOptions]: ServeOptions[Name] } = { ...options };
    return {
      ...start(served),
      lastAnswers: (last) => served.handler = last ? ending : handler,
    };
  };
}

interface BunServer {
  port?: number;
  requestIP(request: Request): { readonly address: string; readonly port: number } | null;
  stop(closeActiveConnections?: boolean): Promise<void>;
}

function serveOnBun(options: ServeOptions): ReturnType<Start> {
  const idleS = Math.ceil((options.idleTimeoutMs ?? MOST_IDLE_S * 1000) / 1000);
  const addressOf = options.withPort
    ? (request: Request) => {
      const peer = server.requestIP(request);
      return peer === null ? "" : `${peer.address}:${peer.port}`;
    }
    : (request: Request) => server.requestIP(request)?.address ?? "";
  const server = bun!.serve({
    ...(options.path === undefined
      ? { hostname: options.hostname, port: options.port }
      : { unix: options.path }),
    ...(options.tls ? { tls: options.tls } : {}),
    // The app's limit is the one that counts and answers in words; a body that it does not read is
    // thrown away as it arrives.
    maxRequestBodySize: Number.MAX_SAFE_INTEGER,
    // 0: for ever.
    idleTimeout: idleS > MOST_IDLE_S ? 0 : idleS,
    development: false,
    // Without this `development: false` shares the port: a second collector would start unnoticed.
    reusePort: options.reusePort === true || options.shared === true,
    fetch: (request: Request) => options.handler(request, addressOf),
    error: (error: unknown) => failed(options, error),
  }) as BunServer;
  let stopped: Promise<void> | null = null;
  return {
    // Undefined of a socket in the file system.
    port: server.port ?? 0,
    stop: () => stopped ??= server.stop(false),
    kill: () => server.stop(true),
  };
}

/**
 * Calls `then` when all is seen that a client has sent so far, with whether its connection is still there;
 * null where the runtime answers what is sent in one go in order.
 *
 * Bun ends a connection at once when it reads a request there while another one waits for its answer, and
 * the other one's answer is gone with it. Where both come in one piece that happens behind the work of the
 * first one, in the same turn of the event loop; so what must not be in vain is done in the next. One
 * timer serves all requests of a turn.
 */
export const stillThere: ((request: Request, then: (there: boolean) => void) => void) | null =
  bun === undefined ? null : (request, then) => {
    waiting.push({ request, then });
    if (waiting.length === 1) setImmediate(turn);
  };

let waiting: { readonly request: Request; readonly then: (there: boolean) => void }[] = [];

function turn(): void {
  const all = waiting;
  waiting = [];
  for (const { request, then } of all) then(!request.signal.aborted);
}

interface DenoPeer {
  readonly remoteAddr: { readonly hostname?: string; readonly port?: number };
}
interface DenoServer {
  addr: { port?: number };
  shutdown(): Promise<void>;
  finished: Promise<void>;
}

/** How long a server that ended by itself waits before it listens again. */
const AGAIN_MS = 100;

function serveOnDeno(options: ServeOptions): ReturnType<Start> {
  const abort = new AbortController();
  let stopping = false;
  let stopped: Promise<void> | null = null;
  const addressOf: (peer: DenoPeer["remoteAddr"]) => string = options.withPort
    ? ({ hostname, port }) => `${hostname}:${port}`
    : ({ hostname = "" }) => hostname;
  const start = (port: number): DenoServer => {
    const server = deno!.serve(
      {
        ...(options.path === undefined
          ? { hostname: options.hostname, port }
          : { path: options.path }),
        ...(options.reusePort || options.shared ? { reusePort: true } : {}),
        ...(options.tls ? { cert: options.tls.cert, key: options.tls.key } : {}),
        signal: abort.signal,
        onListen: () => {},
        onError: (error: unknown) => failed(options, error),
      },
      (request: Request, { remoteAddr }: DenoPeer) =>
        options.handler(request, () => addressOf(remoteAddr)),
    ) as DenoServer;
    // It ends by itself, and the process with it, when a client cannot be let in for want of files.
    server.finished.catch((error) => {
      if (!stopping) options.onError(error);
      again();
    });
    return server;
  };
  const again = () => {
    if (stopping || abort.signal.aborted) return;
    systemClock.after(AGAIN_MS, () => {
      if (stopping || abort.signal.aborted) return;
      try {
        server = start(port);
      } catch {
        again();
      }
    });
  };
  let server = start(options.port);
  const { port = 0 } = server.addr;
  return {
    port,
    stop: () => {
      stopping = true;
      return stopped ??= server.shutdown();
    },
    kill: () => {
      // A server that is stopping knows no other end, and to abort it all the same ends the process
      // with an error that cannot be caught.
      if (stopping) return Promise.resolve();
      abort.abort();
      return server.finished;
    },
  };
}

function failed(options: ServeOptions, error: unknown): Response {
  options.onError(error);
  return Response.json({ error: "internal error" }, { status: 500 });
}

/** For answers still being sent at a stop. */
const LAST_ANSWERS_MS = 1_000;

/** Requests under way get their answers; a connection that stays open is cut off. */
export async function stopListening(listening: Server): Promise<void> {
  const ended = listening.stop().then(() => "ended" as const);
  if (await within(systemClock, LAST_ANSWERS_MS, ended, "late") === "late") await listening.kill();
}

// ── A server whose certificate can be renewed.

/** A client that uses its connection at all does so in this time. */
const RETIRE_MS = 5_000;
/** Where the next one is there already: a client that has just connected has sent its request. */
const RETIRE_LEAST_MS = 1_000;

interface Retiring {
  /** It listens no more; resolves when its last request is answered. */
  end(): Promise<void>;
  readonly sinceMs: number;
}

/** Throws where it cannot be listened. */
function renewable(
  options: ServeOptions & { readonly tls: Tls },
  { start, tryAlone, shares }: Runtime,
): Listening {
  const open = (tls: Tls, port: number) => start({ ...options, tls, port, reusePort: shares });

  const triesAlone = options.reusePort !== true && options.shared !== true && shares;
  let current = open(options.tls, triesAlone ? tryAlone(options) : options.port);
  let retiring: Retiring | null = null;
  /** That answer their last requests, the retiring one with them. */
  const older = new Set<Server>();

  function retire(server: Server, withinMs: number): void {
    server.lastAnswers(true);
    older.add(server);
    const cancel = systemClock.after(withinMs, () => void end());
    const mine: Retiring = { end, sinceMs: systemClock.monotonicMs() };
    async function end() {
      cancel();
      if (retiring === mine) retiring = null;
      await server.stop();
      older.delete(server);
    }
    retiring = mine;
  }

  /** With three on one port it could not be said which is the newer one. */
  async function alone(): Promise<void> {
    if (retiring === null) return;
    await sleep(systemClock, retiring.sinceMs + RETIRE_LEAST_MS - systemClock.monotonicMs());
    void retiring?.end();
  }

  return {
    port: current.port,
    lastAnswers: (last) => current.lastAnswers(last),
    alone,
    async renew(tls) {
      if (!shares) throw new Error("this runtime cannot listen twice on one port");
      await alone();
      // What would steer connections to the new one would take those of the others as well.
      const retires = options.shared === true || await giveWay(current.port, options.hostname);
      const old = current;
      current = open(tls, old.port);
      retire(old, retires ? RETIRE_MS : 0);
    },
    async stop() {
      void retiring?.end();
      await Promise.all([...older, current].map((server) => server.stop()));
    },
    async kill() {
      await Promise.all([...older, current].map((server) => server.kill()));
    },
  };
}

async function giveWay(port: number, hostname: string): Promise<boolean> {
  // Loaded late: a start has no use for it.
  const { sharedPort } = await import("./shared_port.ts");
  return (await sharedPort(port, hostname))?.giveWay() ?? false;
}
