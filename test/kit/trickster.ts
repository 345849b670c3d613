/**
 * A ClickHouse that reads an INSERT as it likes: slowly, not to its end, or on when it has answered. It
 * keeps what it was sent, also of INSERTs that were broken off.
 */

import { createServer, type Socket } from "node:net";
import type { AddressInfo } from "node:net";
import { constants, gunzipSync } from "node:zlib";

/**
 * `whole` and `slow` are read and answered, `unanswered` is stored and cut. The others are read no
 * further from their first bytes on, for some time: `deaf` says nothing, `early` answers at once, `length`
 * wants to know it, `setting` does not know one; `cut` ends there.
 */
export const MOODS = [
  ...["whole", "slow", "unanswered", "deaf", "early", "length", "setting", "cut"] as const,
];
export type Mood = typeof MOODS[number];

/** An INSERT that is over. */
export interface Seen {
  readonly token: string;
  readonly mood: Mood;
  /** Uncompressed, as far as it came. */
  readonly text: string;
  /** It ended as a whole one does. */
  readonly whole: boolean;
  /** Its rows are in the table. */
  readonly stored: boolean;
}

export interface Trickster {
  readonly url: string;
  readonly seen: readonly Seen[];
  /** Resolves when every INSERT is over. */
  close(): Promise<void>;
}

const READ_ON_MS = 250;
const CHUNKS_END = "\r\n0\r\n\r\n";

/** @param isBad a row that the table refuses. @param onDeaf an INSERT is read no further. */
export async function startTrickster(
  moodOf: () => Mood,
  isBad: (line: string) => boolean,
  onDeaf: () => void,
): Promise<Trickster> {
  const seen: Seen[] = [];
  const tokens = new Set<string>();
  const open = new Set<Promise<void>>();

  async function insert(socket: Socket): Promise<void> {
    const parts: Buffer[] = [];
    let bytes = 0;
    let more = () => {};
    const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
    socket.on("error", () => {});
    socket.on("data", (part: Buffer) => {
      parts.push(part);
      bytes += part.length;
      more();
    });
    const next = () => Promise.race([new Promise<void>((resolve) => more = resolve), closed]);
    const pause = async (ms: number) => {
      socket.pause();
      await new Promise((resolve) => setTimeout(resolve, ms));
      socket.resume();
    };
    const answer = (status: string, code = 0, told = "") => {
      const text = code === 0 ? "" : `Code: ${code}. DB::Exception: ${told} (version 26.7.2.1)\n`;
      const header = code === 0
        ? "X-ClickHouse-Server-Display-Name: trickster\r\n"
        : `X-ClickHouse-Exception-Code: ${code}\r\n`;
      const lines = `Content-Length: ${text.length}\r\nConnection: close\r\n${header}`;
      socket.write(`HTTP/1.1 ${status}\r\n${lines}\r\n${text}`);
    };

    await next();
    const first = parts[0]?.toString("latin1") ?? "";
    const from = first.indexOf("\r\n\r\n") + 4;
    const url = new URL(first.split(" ")[1] ?? "/", "http://trickster");
    if (from < 4 || !url.searchParams.get("query")?.startsWith("INSERT")) {
      // It knows no columns, no sieve and no version.
      answer("400 Bad Request", 62, "Syntax error");
      socket.end();
      return await closed;
    }
    const head = first.slice(0, from);
    const length = /^content-length: *(\d+)/im.exec(head)?.[1];
    const textOf = (body: Buffer) => {
      const sent = length === undefined ? unchunked(body) : body;
      if (!/^content-encoding: *gzip/im.test(head)) return sent.toString();
      // Also of a part.
      return sent.length === 0
        ? ""
        : gunzipSync(sent, { finishFlush: constants.Z_SYNC_FLUSH }).toString();
    };
    const soFar = () => Buffer.concat(parts).subarray(from);
    const isWhole = () =>
      length === undefined
        ? Buffer.concat(parts.slice(-2)).subarray(-7).toString("latin1") === CHUNKS_END
        : bytes - from >= Number(length);
    const refuse = (text: string) => {
      const at = text.split("\n").slice(0, -1).findIndex(isBad);
      if (at >= 0) answer("400 Bad Request", 27, `Cannot parse input: (at row ${at + 1})`);
      return at >= 0;
    };

    const wanted = moodOf();
    const mood = wanted === "length" && length !== undefined ? "whole" : wanted;
    const token = url.searchParams.get("insert_deduplication_token") ?? "";
    let stored = false;
    if (!["whole", "slow", "unanswered"].includes(mood)) {
      if (mood === "early" && !refuse(textOf(soFar()))) answer("503 Service Unavailable");
      if (mood === "length") answer("411 Length Required");
      if (mood === "setting") answer("400 Bad Request", 115, "Unknown setting 'wait_end_of_query'");
      if (mood === "deaf") onDeaf();
      if (mood === "cut") socket.resetAndDestroy();
      else await pause(READ_ON_MS);
      while (!socket.destroyed) await next();
    }
    while (!socket.destroyed && !isWhole()) {
      await next();
      if (mood === "slow") await pause(1);
    }
    const whole = isWhole();
    const text = textOf(soFar());
    if (!socket.destroyed) {
      if (!refuse(text)) {
        stored = !tokens.has(token);
        tokens.add(token);
        if (mood === "unanswered") socket.resetAndDestroy();
        else answer("200 OK");
      }
      socket.end();
      await closed;
    }
    seen.push({ token, mood, text, whole, stored });
  }

  const server = createServer((socket) => {
    const over = insert(socket).finally(() => open.delete(over));
    open.add(over);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => resolve()));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    async close() {
      while (open.size > 0) await Promise.all(open);
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

/** What came in chunks, the last one perhaps in part. */
function unchunked(body: Buffer): Buffer {
  const chunks: Buffer[] = [];
  for (let at = 0; at < body.length;) {
    const line = body.indexOf("\r\n", at);
    if (line < 0) break;
    const from = line + 2;
    const to = from + parseInt(body.toString("latin1", at, line), 16);
    chunks.push(body.subarray(from, to));
    at = to + 2;
  }
  return Buffer.concat(chunks);
}
