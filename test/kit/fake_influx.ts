/**
 * InfluxDB as it can be met in the wild: a small HTTP server of raw bytes in front of a real
 * InfluxDB (or one in memory, or none) that fails on command in ways a well-behaved server cannot.
 */
import { Buffer } from "node:buffer";
import { createServer, type Socket } from "node:net";

export interface Seen {
  readonly method: string;
  /** With the query. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/**
 * `pass`: the real server answers · `lost`: it works on the request, and the connection is cut
 * before its answer · `refuse`: cut before the request is read by anybody · `hang`: no answer ever ·
 * `half`: a 200 whose body is cut short · `half-error`: the same for a 400 · `stall`: a 200 whose
 * body never ends and never comes · `endless`: a 400 whose body never ends · `junk`: no HTTP ·
 * an object: this answer, and nobody works on the request.
 */
export type Behaviour =
  | "pass"
  | "lost"
  | "refuse"
  | "hang"
  | "half"
  | "half-error"
  | "stall"
  | "endless"
  | "junk"
  | { readonly status: number; readonly body?: string; readonly headers?: readonly string[] };

export interface FakeInflux {
  readonly url: string;
  readonly port: number;
  /** Complete requests, oldest first. */
  readonly seen: readonly Seen[];
  behave(how: Behaviour | ((request: Seen) => Behaviour | Promise<Behaviour>)): void;
  /** Connections that are open. */
  open(): number;
  close(): Promise<void>;
}

/** Who works on a request that is passed on: a real server's URL, one in memory, or nobody (204). */
export type Target = string | { answer(request: Seen): { status: number; body: string } } | null;

/** Starts it in front of `target`; it passes everything on until it is told to behave otherwise. */
export async function startFakeInflux(target: Target): Promise<FakeInflux> {
  const seen: Seen[] = [];
  const sockets = new Set<Socket>();
  let decide: (request: Seen) => Behaviour | Promise<Behaviour> = () => "pass";

  const answer = async (socket: Socket, request: Seen) => {
    const how = await decide(request);
    if (typeof how === "object") return reply(socket, how.status, how.body, how.headers);
    if (how === "refuse") return socket.destroy();
    if (how === "hang") return;
    if (how === "junk") return socket.end("what is this\r\n\r\n");
    if (how === "stall") return socket.write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n");
    if (how === "endless") return flood(socket);
    if (how === "half" || how === "half-error") {
      const status = how === "half" ? "200 OK" : "400 Bad Request";
      socket.write(`HTTP/1.1 ${status}\r\nContent-Length: 99\r\n\r\nhalf`, () => socket.destroy());
      return;
    }
    const real = await forward(target, request);
    if (how === "lost") socket.destroy();
    else reply(socket, real.status, real.body);
  };

  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => sockets.delete(socket));
    let parts: Buffer[] = [];
    let missing = 0;
    socket.on("data", (part) => {
      parts.push(part as Buffer);
      missing -= (part as Buffer).length;
      if (missing > 0) return;
      const bytes = Buffer.concat(parts);
      const request = parse(bytes);
      if (typeof request === "number") {
        missing = request;
        return;
      }
      parts = [];
      seen.push(request);
      void answer(socket, request);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  return {
    port,
    url: `http://127.0.0.1:${port}`,
    seen,
    behave: (how) => decide = typeof how === "function" ? how : () => how,
    open: () => sockets.size,
    close: () => {
      for (const socket of sockets) socket.destroy();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}

function reply(socket: Socket, status: number, body = "", headers: readonly string[] = []): void {
  const length = status === 204 ? [] : [`Content-Length: ${Buffer.byteLength(body)}`];
  const head = [`HTTP/1.1 ${status} Status`, "Connection: close", ...length, ...headers];
  socket.end(`${head.join("\r\n")}\r\n\r\n${body}`);
}

function flood(socket: Socket): void {
  const block = `10000\r\n${"x".repeat(0x10000)}\r\n`;
  const pour = () => {
    while (!socket.destroyed && socket.write(block));
  };
  socket.on("drain", pour);
  socket.write("HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\n");
  pour();
}

async function forward(target: Target, request: Seen) {
  if (target === null) return { status: 204, body: "" };
  if (typeof target === "object") return target.answer(request);
  const { method, path, headers, body } = request;
  try {
    const response = await fetch(target + path, {
      method,
      ...(headers["content-type"] && { headers: { "content-type": headers["content-type"] } }),
      ...(body !== "" && { body }),
    });
    return { status: response.status, body: await response.text() };
  } catch {
    return { status: 502, body: "" };
  }
}

/** The request, or how many bytes of it are missing at least. */
function parse(bytes: Buffer): Seen | number {
  const end = bytes.indexOf("\r\n\r\n");
  if (end < 0) return 1;
  const [first = "", ...lines] = bytes.subarray(0, end).toString("latin1").split("\r\n");
  const headers = Object.fromEntries(lines.map((line) => {
    const colon = line.indexOf(":");
    return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
  }));
  const length = Number(headers["content-length"] ?? 0);
  const body = bytes.subarray(end + 4);
  if (body.length < length) return length - body.length;
  const [method = "", path = ""] = first.split(" ");
  return { method, path, headers, body: body.toString() };
}
