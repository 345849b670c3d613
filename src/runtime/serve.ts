/**
 * One HTTP server for both runtimes. Promises: `stop()` takes no new connection and resolves when the
 * requests under way are answered; `kill()` waits for them no longer, and cuts them off where the
 * runtime can still do that. The end of the process does it in any case.
 */

import { bun, deno } from "./host.ts";

export interface ServeOptions {
  readonly hostname: string;
  /** 0 = the system chooses. */
  readonly port: number;
  readonly tls?: { readonly cert: string; readonly key: string };
  /** Largest body the server itself lets through; the app answers politely below it. */
  readonly maxBodyBytes: number;
  readonly handler: (request: Request) => Response | Promise<Response>;
  /** Told of what the handler threw; the client gets a bare 500. */
  readonly onError: (error: unknown) => void;
}

export interface Listening {
  /** The port that is really listened on. */
  readonly port: number;
  stop(): Promise<void>;
  kill(): Promise<void>;
}

/** An idle connection is closed after this, also one that waits for its answer (`Prefer: wait=N`). */
const IDLE_TIMEOUT_S = 255;

/** Throws what the system says when the address cannot be bound. */
export function serve(options: ServeOptions): Listening {
  if (bun) return serveOnBun(options);
  if (deno) return serveOnDeno(options);
  throw new Error("this runtime has no HTTP server that Shishi knows");
}

interface BunServer {
  port: number;
  stop(closeActiveConnections?: boolean): Promise<void>;
}

function serveOnBun(options: ServeOptions): Listening {
  const server = bun!.serve({
    hostname: options.hostname,
    port: options.port,
    ...(options.tls ? { tls: options.tls } : {}),
    maxRequestBodySize: options.maxBodyBytes,
    idleTimeout: IDLE_TIMEOUT_S,
    development: false,
    // Without this `development: false` shares the port: a second collector would start unnoticed.
    reusePort: false,
    fetch: (request: Request) => options.handler(request),
    error: (error: unknown) => failed(options, error),
  }) as BunServer;
  return {
    port: server.port,
    stop: () => server.stop(false),
    kill: () => server.stop(true),
  };
}

interface DenoServer {
  addr: { port: number };
  shutdown(): Promise<void>;
  finished: Promise<void>;
}

function serveOnDeno(options: ServeOptions): Listening {
  const abort = new AbortController();
  let stopping = false;
  const server = deno!.serve({
    hostname: options.hostname,
    port: options.port,
    ...(options.tls ?? {}),
    signal: abort.signal,
    onListen: () => {},
    onError: (error: unknown) => failed(options, error),
  }, (request: Request) => options.handler(request)) as DenoServer;
  return {
    port: server.addr.port,
    stop: () => {
      stopping = true;
      return server.shutdown();
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
