/**
 * An HTTP/1.1 client whose every byte the test decides, for what no decent client would send. It reads
 * answers strictly: what the collector sends back has to be right, whatever it was sent.
 */
import { Buffer } from "node:buffer";
import { connect, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { patient } from "./wait.ts";

export interface RawAnswer {
  readonly status: number;
  /** Names in lower case. */
  readonly headers: ReadonlyMap<string, string>;
  readonly text: string;
  /** The body parsed; null where it is no JSON. */
  // deno-lint-ignore no-explicit-any
  readonly json: any;
}

export interface RawConnection {
  /** Sends these bytes as they are; silently nothing once the other side has hung up. */
  send(...pieces: (string | Uint8Array)[]): void;
  /** The next final answer (no `100 Continue`), or null when the connection ends without one. */
  answer(): Promise<RawAnswer | null>;
  /** Ends our half; answers can still come. */
  end(): void;
  /** Resolves when the connection is gone. */
  readonly ended: Promise<void>;
  close(): Promise<void>;
}

const ANSWER_WITHIN_MS = 20_000;

/** @param ca certificate to trust, for `https`. */
export async function openRaw(url: string, ca?: string): Promise<RawConnection> {
  const { protocol, hostname, port } = new URL(url);
  const at = { host: hostname, port: Number(port) };
  const socket: Socket = protocol === "https:" ? connectTls({ ...at, ca }) : connect(at);
  let buffer = Buffer.alloc(0);
  let gone = false;
  let wake = () => {};
  socket.on("data", (bytes: Uint8Array) => {
    buffer = Buffer.concat([buffer, bytes]);
    wake();
  });
  socket.on("error", () => {});
  const ended = new Promise<void>((resolve) =>
    socket.once("close", () => {
      gone = true;
      wake();
      resolve();
    })
  );
  await new Promise<void>((resolve, reject) => {
    socket.once(protocol === "https:" ? "secureConnect" : "connect", () => resolve());
    socket.once("error", reject);
  });

  const next = (): RawAnswer | null => {
    const end = buffer.indexOf("\r\n\r\n");
    if (end < 0) return null;
    const [first = "", ...lines] = buffer.subarray(0, end).toString("latin1").split("\r\n");
    const status = Number(/^HTTP\/1\.[01] (\d{3})\b/.exec(first)?.[1] ?? NaN);
    if (Number.isNaN(status)) throw new Error(`no HTTP: ${first.slice(0, 100)}`);
    const headers = new Map(lines.map((line) => {
      const [, name = "", value = ""] = /^([^:]+): *(.*)$/.exec(line) ?? [];
      return [name.toLowerCase(), value] as const;
    }));
    if (headers.has("transfer-encoding")) throw new Error("an answer in chunks is not read here");
    const length = status < 200 ? 0 : Number(headers.get("content-length") ?? 0);
    if (buffer.length < end + 4 + length) return null;
    const text = buffer.subarray(end + 4, end + 4 + length).toString();
    buffer = buffer.subarray(end + 4 + length);
    if (status < 200) return next();
    return { status, headers, text, json: jsonOf(text) };
  };

  return {
    send: (...pieces) => {
      for (const piece of pieces) if (!gone) socket.write(piece);
    },
    async answer() {
      const withinMs = patient(ANSWER_WITHIN_MS);
      const deadlineMs = performance.now() + withinMs;
      for (;;) {
        const found = next();
        if (found !== null || gone) return found;
        const leftMs = deadlineMs - performance.now();
        if (leftMs <= 0) throw new Error(`no answer within ${withinMs} ms`);
        let timer: ReturnType<typeof setTimeout> | undefined;
        await new Promise<void>((resolve) => {
          wake = resolve;
          timer = setTimeout(resolve, leftMs);
        });
        clearTimeout(timer);
      }
    },
    end: () => void socket.end(),
    ended,
    close: () => {
      socket.destroy();
      return ended;
    },
  };
}

/** A request as it goes over the wire; `Content-Length` is added where a body is given. */
export function rawRequest(
  method: string,
  path: string,
  headers: Readonly<Record<string, string>> = {},
  body?: string | Uint8Array,
): Uint8Array {
  const bytes = typeof body === "string" ? Buffer.from(body) : body ?? new Uint8Array(0);
  const all = {
    Host: "collector.test",
    ...(body === undefined ? {} : { "Content-Length": String(bytes.length) }),
    ...headers,
  };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  return Buffer.concat([Buffer.from(`${method} ${path} HTTP/1.1\r\n${lines.join("")}\r\n`), bytes]);
}

// deno-lint-ignore no-explicit-any
function jsonOf(text: string): any {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
