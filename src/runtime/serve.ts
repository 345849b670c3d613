/**
 * One HTTP server for both runtimes. Promises: `stop()` takes no new connection and resolves when the
 * requests under way are answered; `kill()` waits for them no longer, and cuts them off where the
 * runtime can still do that. The end of the process does it in any case.
 *
 * A certificate is renewed by a second server on the same port, since neither runtime can change that
 * of a server: see `renewable.ts`.
 */

import { nodeNet } from "../kernel/builtins.ts";
import { systemClock } from "./clock.ts";
import { bun, deno } from "./host.ts";
import { renewable, type Runtime } from "./renewable.ts";

/** PEM texts. */
export interface Tls {
  readonly cert: string;
  readonly key: string;
}

export interface ServeOptions {
  readonly hostname: string;
  /** 0 = the system chooses. */
  readonly port: number;
  /** Another process of this program listens there and goes away soon. */
  readonly reusePort?: boolean;
  /** Others listen there as well, and stay: the system shares out the connections. */
  readonly shared?: boolean;
  readonly tls?: Tls;
  /** `addressOf` tells the peer's address, such as `127.0.0.1` or `2001:db8::1`; to ask has its price. */
  readonly handler: (
    request: Request,
    addressOf: (request: Request) => string,
  ) => Response | Promise<Response>;
  /** Told of what the handler threw; the client gets a bare 500. */
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
  /** Resolves when nobody of this process is left on the port from before a `renew`. */
  alone(): Promise<void>;
}

/** An idle connection is closed after this, also one that waits for its answer (`Prefer: wait=N`). */
const IDLE_TIMEOUT_S = 255;

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
    const { hostname, port } = options;
    const address = `${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`;
    throw new Error(`cannot listen on ${address}: ${reasonOf(error, hostname)}`);
  }
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
    const ending: ServeOptions["handler"] = async (request, addressOf) => {
      const response = await handler(request, addressOf);
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
  port: number;
  requestIP(request: Request): { readonly address: string } | null;
  stop(closeActiveConnections?: boolean): Promise<void>;
}

function serveOnBun(options: ServeOptions): ReturnType<Start> {
  const addressOf = (request: Request) => server.requestIP(request)?.address ?? "";
  const server = bun!.serve({
    hostname: options.hostname,
    port: options.port,
    ...(options.tls ? { tls: options.tls } : {}),
    // The app's limit is the one that counts and answers in words; a body that it does not read is
    // thrown away as it arrives.
    maxRequestBodySize: Number.MAX_SAFE_INTEGER,
    idleTimeout: IDLE_TIMEOUT_S,
    development: false,
    // Without this `development: false` shares the port: a second collector would start unnoticed.
    reusePort: options.reusePort === true || options.shared === true,
    fetch: (request: Request) => options.handler(request, addressOf),
    error: (error: unknown) => failed(options, error),
  }) as BunServer;
  let stopped: Promise<void> | null = null;
  return {
    port: server.port,
    stop: () => stopped ??= server.stop(false),
    kill: () => server.stop(true),
  };
}

interface DenoPeer {
  readonly remoteAddr: { readonly hostname: string };
}
interface DenoServer {
  addr: { port: number };
  shutdown(): Promise<void>;
  finished: Promise<void>;
}

/** How long a server that ended by itself waits before it listens again. */
const AGAIN_MS = 100;

function serveOnDeno(options: ServeOptions): ReturnType<Start> {
  const abort = new AbortController();
  let stopping = false;
  let stopped: Promise<void> | null = null;
  const start = (port: number): DenoServer => {
    const server = deno!.serve(
      {
        hostname: options.hostname,
        port,
        ...(options.reusePort || options.shared ? { reusePort: true } : {}),
        ...(options.tls ? { cert: options.tls.cert, key: options.tls.key } : {}),
        signal: abort.signal,
        onListen: () => {},
        onError: (error: unknown) => failed(options, error),
      },
      (request: Request, { remoteAddr }: DenoPeer) =>
        options.handler(request, () => remoteAddr.hostname),
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
    setTimeout(() => {
      if (stopping || abort.signal.aborted) return;
      try {
        server = start(port);
      } catch {
        again();
      }
    }, AGAIN_MS);
  };
  let server = start(options.port);
  const { port } = server.addr;
  return {
    port,
    stop: () => {
      stopping = true;
      return stopped ??= server.shutdown();
    },
    kill: () => {
      // A server that is stopping knows no other end, and to abort it all the same ends the process
      // with an error that nobody can catch.
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
export async function stopListening(listening: Listening): Promise<void> {
  let cancel = () => {};
  const late = new Promise<"late">((resolve) => {
    cancel = systemClock.after(LAST_ANSWERS_MS, () => resolve("late"));
  });
  if (await Promise.race([listening.stop(), late]) === "late") await listening.kill();
  cancel();
}
