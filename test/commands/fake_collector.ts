/**
 * A collector as `shishi dead replay` meets it: takes rows, stores or buries them, knows a batch that
 * it was given before, and can be told to misbehave. ClickHouse is a list of rows.
 */

import { Buffer } from "node:buffer";
import { createServer as createPlain, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer as createSecure } from "node:https";
import type { AddressInfo } from "node:net";
import { systemClock } from "../../src/runtime/clock.ts";
import { nodeFiles } from "../../src/runtime/files.ts";
import { createLetters } from "../../src/dead/letters.ts";
import type { Log } from "../../src/contracts.ts";

/** What to do with one POST instead of the usual. */
export type Odd =
  | "usual"
  /** The rows are taken; the answer never comes. */
  | "cut after"
  /** Nothing is read. */
  | "cut before"
  /** Taken, and ClickHouse is slow: 202 now, their fate next time. */
  | "slow"
  /** Taken, and the answer waits until `release`. */
  | "hold"
  | { readonly status: number; readonly retryAfter?: number; readonly error?: string };

export interface Posted {
  readonly path: string;
  readonly replay: string;
  readonly prefer: string;
  readonly authorization: string;
  readonly rows: readonly string[];
}

export interface FakeCollector {
  readonly url: string;
  /** Every POST that was read. */
  readonly posts: Posted[];
  /** In ClickHouse, in order. */
  readonly stored: string[];
  /** The next POSTs go by these, one each. */
  misbehave(...what: readonly Odd[]): void;
  release(): void;
  close(): Promise<void>;
}

export interface FakeOptions {
  /** Where it buries; none = it counts the dead and forgets them. */
  readonly dataDir?: string;
  /** Rows that ClickHouse refuses. */
  readonly dead?: (row: string) => boolean;
  /** Why a row is refused before it is taken, or null. */
  readonly refuse?: (row: string) => string | null;
  readonly maxBodyBytes?: number;
  readonly token?: string;
  readonly tls?: { readonly cert: string; readonly key: string };
  /** Tables that it has; all unless given. */
  readonly tables?: readonly string[];
}

const QUIET: Log = { debug() {}, info() {}, warn() {}, error() {} };

export async function startFakeCollector(options: FakeOptions = {}): Promise<FakeCollector> {
  const { dataDir, dead = () => false, refuse = () => null, maxBodyBytes = Infinity } = options;
  const letters = dataDir === undefined ? null : createLetters({
    files: nodeFiles,
    dataDir,
    maxBytes: () => 2 ** 40,
    log: QUIET,
    clock: systemClock,
  });
  const script: Odd[] = [];
  const stored: string[] = [];
  const posts: Posted[] = [];
  /** Dead rows of each batch that was taken. */
  const settled = new Map<string, number>();
  let release = () => {};

  async function take(replay: string, rows: readonly string[]): Promise<number> {
    const known = settled.get(replay);
    if (known !== undefined) return known;
    const [table = "", id = ""] = replay.split("/");
    const bad = rows.flatMap((row, index) => dead(row) ? [index] : []);
    settled.set(replay, bad.length);
    stored.push(...rows.filter((row) => !dead(row)));
    await letters?.bury(
      { id, table, shape: "row" },
      bad.map((index) => ({ index, code: 26, message: "still bad" })),
      bad.map((index) => rows[index]!),
    );
    return bad.length;
  }

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const say = (status: number, body: unknown, headers: Record<string, string> = {}) =>
      response.writeHead(status, headers).end(JSON.stringify(body));
    const odd = script.shift() ?? "usual";
    if (odd === "cut before") return void request.socket.destroy();
    const pieces: Uint8Array[] = [];
    for await (const piece of request) pieces.push(piece);
    const body = new TextDecoder().decode(Buffer.concat(pieces));
    const header = (name: string) => String(request.headers[name] ?? "");
    const rows = body.split("\n").slice(0, -1);
    const replay = header("shishi-replay");
    posts.push({
      path: request.url ?? "",
      replay,
      prefer: header("prefer"),
      authorization: header("authorization"),
      rows,
    });
    const table = replay.split("/")[0]!;
    if (options.token !== undefined && header("authorization") !== `Bearer ${options.token}`) {
      return void say(401, { error: "a bearer token is needed" });
    }
    if (typeof odd === "object") {
      const headers: Record<string, string> = odd.retryAfter === undefined
        ? {}
        : { "Retry-After": String(odd.retryAfter) };
      return void say(odd.status, { error: odd.error ?? "no" }, headers);
    }
    if (options.tables?.includes(table) === false) {
      return void say(404, { error: `there is no table ${table}` });
    }
    const echo = { "Shishi-Replay": replay };
    if (!settled.has(replay)) {
      if (Buffer.byteLength(body) > maxBodyBytes) {
        return void say(413, { error: "too large" }, echo);
      }
      const errors = rows.flatMap((row, index) => {
        const error = refuse(row);
        return error === null ? [] : [{ index, error }];
      });
      if (errors.length > 0) {
        return void say(
          400,
          { accepted: 0, rejected: rows.length, errors: errors.slice(0, 100) },
          echo,
        );
      }
    }
    const bad = await take(replay, rows);
    if (odd === "cut after") return void request.socket.destroy();
    if (odd === "slow") return void say(202, { accepted: rows.length, ack: "disk" }, echo);
    if (odd === "hold") await new Promise<void>((resolve) => release = resolve);
    say(
      200,
      { accepted: rows.length, rejected: 0, ack: "clickhouse", dead: bad, errors: [] },
      echo,
    );
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
    url: `${scheme}://127.0.0.1:${(server.address() as AddressInfo).port}`,
    posts,
    stored,
    misbehave: (...what) => void script.push(...what),
    release: () => release(),
    close: () =>
      new Promise((resolve) => {
        release();
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
