/** A proxy in front of ClickHouse that counts INSERTs from their first byte until their answer goes out. */
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";

const OF_ONE_CONNECTION = ["host", "connection", "content-length", "transfer-encoding"];

export interface Counting {
  readonly url: string;
  counted(): {
    /** That were answered. */
    readonly inserts: number;
    /** That were under way at one moment. */
    readonly most: number;
  };
  close(): Promise<void>;
}

export async function startCounting(clickhouseUrl: string): Promise<Counting> {
  let underWay = 0;
  let most = 0;
  let inserts = 0;

  async function forward(request: IncomingMessage): Promise<Response> {
    const chunks: Uint8Array[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = request.method === "POST" ? { body: new Blob(chunks as BlobPart[]) } : {};
    const headers = Object.entries(request.headers as Record<string, string>)
      .filter(([name]) => !OF_ONE_CONNECTION.includes(name));
    return await fetch(clickhouseUrl + request.url, { method: request.method!, headers, ...body });
  }

  const server = createServer(async (request, response) => {
    const isInsert = /INSERT/.test(decodeURIComponent(request.url ?? ""));
    if (isInsert) most = Math.max(most, ++underWay);
    try {
      const answer = await forward(request);
      const text = await answer.text();
      const headers = [...answer.headers].filter(([name]) => /^x-|^content-type$/.test(name));
      if (isInsert) inserts++;
      response.writeHead(answer.status, Object.fromEntries(headers));
      if (isInsert) underWay--;
      response.end(text);
    } catch {
      if (isInsert) underWay--;
      response.destroy();
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    counted: () => ({ inserts, most }),
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
