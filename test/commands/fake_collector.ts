/**
 * A collector as `shishi dead` meets it: its routes about dead letters over a real socket, with a made-up
 * intake behind them that can be told to misbehave.
 */

import { createServer as createPlain, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer as createSecure } from "node:https";
import type { AddressInfo } from "node:net";
import { Readable } from "node:stream";
import type { ReadableStream } from "node:stream/web";
import { appOn, Script } from "../admit/kit.ts";
import { type FakeIntake, type FakeIntakeOptions, startFakeIntake } from "../dead/fake_intake.ts";

/** What to do with one replay instead of the usual. */
export type Odd =
  /** It is done; the answer never comes. */
  | "cut after"
  /** Nothing is read. */
  | "cut before"
  | { readonly status: number; readonly retryAfter?: number; readonly error?: string };

export interface FakeCollector extends Omit<FakeIntake, "misbehave"> {
  readonly url: string;
  /** Requests that were let in, as `POST /api/dead/replay`. */
  readonly asked: string[];
  /** The next replays go by these, one each. */
  misbehave(...what: readonly Odd[]): void;
  /** The next chunks that its intake is given go by these. */
  readonly takeOddly: FakeIntake["misbehave"];
  close(): Promise<void>;
}

export interface FakeOptions extends FakeIntakeOptions {
  readonly token?: string;
  readonly tls?: { readonly cert: string; readonly key: string };
}

export async function startFakeCollector(options: FakeOptions): Promise<FakeCollector> {
  const { misbehave: takeOddly, ...fake } = startFakeIntake(options);
  const script = Object.assign(new Script(), { letters: fake.letters });
  const app = appOn(script, { authTokens: options.token === undefined ? [] : [options.token] });
  const oddities: Odd[] = [];
  const asked: string[] = [];

  async function answer(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const { method = "GET", url = "/" } = incoming;
    const odd = method === "POST" ? oddities.shift() : undefined;
    if (odd === "cut before") return void incoming.socket.destroy();
    asked.push(`${method} ${url}`);
    if (typeof odd === "object") {
      const headers = odd.retryAfter === undefined ? {} : { "Retry-After": String(odd.retryAfter) };
      return void outgoing.writeHead(odd.status, headers)
        .end(JSON.stringify({ error: odd.error ?? "no" }));
    }
    const gone = new AbortController();
    outgoing.on("close", () => gone.abort());
    const body = method === "POST"
      ? Readable.toWeb(incoming) as unknown as globalThis.ReadableStream<Uint8Array>
      : null;
    const request = new Request(
      `http://localhost${url}`,
      {
        method,
        headers: incoming.headers as Record<string, string>,
        signal: gone.signal,
        ...(body === null ? {} : { body, duplex: "half" }),
      } as RequestInit,
    );
    const response = await app.fetch(request, () => "127.0.0.1");
    if (odd === "cut after") return void incoming.socket.destroy();
    outgoing.writeHead(response.status, Object.fromEntries(response.headers));
    if (response.body === null) return void outgoing.end();
    Readable.fromWeb(response.body as unknown as ReadableStream).pipe(outgoing);
  }

  const listener = (request: IncomingMessage, response: ServerResponse) => {
    answer(request, response).catch(() => response.destroy());
  };
  const server = options.tls === undefined
    ? createPlain(listener)
    : createSecure({ cert: options.tls.cert, key: options.tls.key }, listener);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => resolve()));
  const scheme = options.tls === undefined ? "http" : "https";
  return {
    ...fake,
    url: `${scheme}://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked,
    misbehave: (...what) => void oddities.push(...what),
    takeOddly,
    close: () =>
      new Promise((resolve) => {
        fake.release();
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
