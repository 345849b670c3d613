/**
 * HTTP proxies before a real server. `startForwardProxy` is one that clients are told of (`HTTP_PROXY`): it
 * reaches one server, whatever name it is asked for. `startReverseProxy` is one that clients take for the
 * server: it has a path for it, may want a header, and may drop parameters, as chproxy does.
 */

import { createServer, type IncomingMessage, request, type ServerResponse } from "node:http";
import { type AddressInfo, connect } from "node:net";

export interface HttpProxy {
  readonly url: string;
  readonly port: number;
  /** `METHOD URL authorization`, of a forward proxy's requests. */
  readonly seen: readonly string[];
  close(): Promise<void>;
}

/** @param target `http://127.0.0.1:PORT`; a tunnel (`CONNECT`) ends there too. */
export async function startForwardProxy(target: string): Promise<HttpProxy> {
  const seen: string[] = [];
  const note = ({ method, url, headers }: IncomingMessage) =>
    seen.push(`${method} ${url} ${headers["proxy-authorization"] ?? ""}`.trimEnd());
  const server = createServer((asked, answer) => {
    note(asked);
    const { pathname, search } = new URL(asked.url ?? "", target);
    forward(asked, answer, `${target}${pathname}${search}`);
  });
  server.on("connect", (asked, client) => {
    note(asked);
    const { hostname, port } = new URL(target);
    const there = connect(Number(port), hostname, () => {
      client.write("HTTP/1.1 200 Connection established\r\n\r\n");
      client.pipe(there).pipe(client);
    });
    for (const socket of [there, client]) {
      socket.on("error", () => [there, client].forEach((one) => one.destroy()));
    }
  });
  return await listening(server, seen);
}

/** What chproxy hands on of a request's parameters; no setting is among them. */
const CHPROXY =
  /^(query|database|default_format|client_protocol_version|(de)?compress|enable_http_compression|max_result_rows|extremes|result_overflow_mode|session_id|session_timeout|log_comment|.*_(types|structure|format))$/;

/** @param options.path of the server, `/ch/`. @param options.header without which it answers 401, and which it keeps. */
export async function startReverseProxy(
  target: string,
  options: {
    readonly path?: string;
    readonly header?: readonly [name: string, value: string];
    /** Parameters that it drops: what chproxy does, or by name. */
    readonly drops?: "as chproxy" | readonly string[];
    /** Only queries get through, no `/ping`. */
    readonly queriesOnly?: boolean;
  },
): Promise<HttpProxy> {
  const { path = "/", header, drops = [], queriesOnly = false } = options;
  const server = createServer((asked, answer) => {
    const refuse = (status: number) => {
      asked.resume();
      answer.writeHead(status).end(`the proxy says ${status}\n`);
    };
    const url = new URL(asked.url ?? "", "http://proxy");
    if (header !== undefined && asked.headers[header[0].toLowerCase()] !== header[1]) {
      return refuse(401);
    }
    // It was meant for the proxy.
    if (header !== undefined) delete asked.headers[header[0].toLowerCase()];
    const rest = url.pathname.startsWith(path) ? url.pathname.slice(path.length) : null;
    if (rest === null || queriesOnly && rest !== "") return refuse(404);
    for (const name of [...url.searchParams.keys()]) {
      const dropped = drops === "as chproxy" ? !CHPROXY.test(name) : drops.includes(name);
      if (dropped) url.searchParams.delete(name);
    }
    forward(asked, answer, `${target}/${rest}${url.search}`);
  });
  return await listening(server, []);
}

function forward(asked: IncomingMessage, answer: ServerResponse, url: string): void {
  const { host: _, connection: __, "proxy-authorization": ___, ...headers } = asked.headers;
  const there = request(url, { method: asked.method ?? "GET", headers, agent: false }, (told) => {
    answer.writeHead(told.statusCode ?? 502, told.headers);
    told.pipe(answer);
  });
  there.on("error", () => answer.destroy());
  answer.on("close", () => there.destroy());
  asked.pipe(there);
}

async function listening(
  server: ReturnType<typeof createServer>,
  seen: readonly string[],
): Promise<HttpProxy> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    seen,
    close: () => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}
