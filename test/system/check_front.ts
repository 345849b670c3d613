/**
 * A ClickHouse whose answers are the real one's, but for those that a test wants otherwise: rights and
 * clocks that the embedded server cannot be brought to have.
 */
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";

/** What to answer to a statement; null: what the real server says. */
export type Answering = (sql: string) => { status?: number; code?: number; body: string } | null;

export interface Front {
  readonly url: string;
  close(): Promise<void>;
}

/** What shows that a ClickHouse answers. */
const OWN = { "x-clickhouse-server-display-name": "front" };

export async function startFront(target: string, answering: Answering): Promise<Front> {
  const server = createServer(async (request, response) => {
    const body = await whole(request);
    const { pathname, search, searchParams } = new URL(request.url ?? "/", target);
    const told = answering(searchParams.get("query") ?? new TextDecoder().decode(body));
    if (told !== null) {
      const code = told.code === undefined ? {} : { "x-clickhouse-exception-code": `${told.code}` };
      response.writeHead(told.status ?? 200, { ...OWN, ...code }).end(told.body);
      return;
    }
    const { method = "GET" } = request;
    const answer = await fetch(`${target}${pathname}${search}`, {
      method,
      ...(method === "GET" ? {} : { body }),
    });
    response.writeHead(
      answer.status,
      [...answer.headers].flatMap(([name, value]) =>
        /^(content-(length|encoding)|transfer-encoding|connection)$/.test(name) ? [] : [name, value]
      ),
    ).end(new Uint8Array(await answer.arrayBuffer()));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}

async function whole(request: IncomingMessage): Promise<Uint8Array<ArrayBuffer>> {
  const parts: Uint8Array[] = [];
  for await (const part of request) parts.push(part);
  return new Uint8Array(await new Blob(parts as BlobPart[]).arrayBuffer());
}
