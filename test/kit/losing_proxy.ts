/**
 * A proxy in front of ClickHouse that does with an INSERT what a test says: hands it on, loses its answer
 * when ClickHouse has done its work, or refuses it. It sees the rows as long as they come plain.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface SeenInsert {
  /** Without its database. */
  readonly table: string;
  readonly token: string;
  readonly rows: string;
}

/** `refuse`: it does not reach ClickHouse. `large`: it is answered with 413, as a proxy does by size. */
export type InsertFate = Fate | Promise<Fate>;
type Fate = "pass" | "lose" | "refuse" | "large";

export interface LosingProxy {
  readonly url: string;
  /** Every INSERT that came, in order. */
  readonly seen: readonly SeenInsert[];
  /** What becomes of the next ones. */
  fateOf: (insert: SeenInsert) => InsertFate;
  /** Added to each request that does not have it. */
  readonly settings: Record<string, string>;
  close(): Promise<void>;
}

export async function startLosingProxy(clickhouseUrl: string): Promise<LosingProxy> {
  const seen: SeenInsert[] = [];
  const settings: Record<string, string> = {};

  async function forward(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Uint8Array[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks);
    const url = new URL(request.url ?? "/", clickhouseUrl);
    for (const [name, value] of Object.entries(settings)) {
      if (!url.searchParams.has(name)) url.searchParams.set(name, value);
    }
    let fate: Fate = "pass";
    const table = /^INSERT INTO `[^`]*`\.`([^`]*)`/.exec(url.searchParams.get("query") ?? "")?.[1];
    if (table !== undefined) {
      const token = url.searchParams.get("insert_deduplication_token") ?? "";
      const insert = { table, token, rows: body.toString() };
      seen.push(insert);
      fate = await proxy.fateOf(insert);
    }
    if (fate === "refuse") return void response.destroy();
    if (fate === "large") return void response.writeHead(413).end();
    const headers: Record<string, string> = {};
    for (const [name, value] of Object.entries(request.headers)) {
      if (!/^(?:host|connection|content-length|transfer-encoding|accept-encoding)$/.test(name)) {
        headers[name] = String(value);
      }
    }
    const answer = await fetch(url, {
      method: request.method!,
      headers,
      ...(request.method === "POST" ? { body } : {}),
    });
    const text = await answer.text();
    if (fate === "lose") return void response.destroy();
    const own = [...answer.headers].filter(([name]) => /^x-|^content-type$/.test(name));
    response.writeHead(answer.status, Object.fromEntries(own));
    response.end(text);
  }

  const server = createServer((request, response) => {
    forward(request, response).catch(() => response.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const proxy: LosingProxy = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    fateOf: () => "pass",
    settings,
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return proxy;
}
