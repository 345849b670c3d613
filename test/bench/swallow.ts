/**
 * `swallow.ts PORT`: a ClickHouse that takes every INSERT, counts its rows and forgets them, for next to
 * no CPU. Answers what the collector asks besides: ping, version, columns, CREATE TABLE. A block that
 * comes twice counts once. `/bench?delay=MS` tells the rows so far, and lets each later INSERT wait.
 */
import process from "node:process";
import { serve } from "../../src/runtime/server.ts";

const COLUMNS: Record<string, Record<string, string>> = {
  analytics_events: {
    id: "UUID",
    timestamp: "DateTime64(3, 'UTC')",
    event_type: "LowCardinality(String)",
    user_id: "String",
    properties: "Map(LowCardinality(String), String)",
  },
  bench_rows: {
    eventType: "LowCardinality(String)",
    userId: "String",
    timestamp: "DateTime64(3, 'UTC')",
    properties: "Map(String, String)",
  },
};

let rows = 0;
let bytes = 0;
let delayMs = 0;
/** Tokens of blocks, as many as ClickHouse would remember. */
const tokens = new Set<string>();

async function handle(request: Request): Promise<Response> {
  const url = new URL(request.url);
  if (url.pathname === "/ping") return new Response("Ok.\n");
  if (url.pathname === "/bench") {
    delayMs = Number(url.searchParams.get("delay") ?? delayMs);
    return Response.json({ rows, bytes });
  }
  if (/^\s*INSERT/.test(url.searchParams.get("query") ?? "")) {
    return await insert(request, url.searchParams.get("insert_deduplication_token"));
  }
  const query = url.searchParams.get("query") ?? await request.text();
  if (query.includes("system.columns")) {
    const list = query.match(/table (?:=|IN) (\('[^)]*\)|'\w+')/)?.[1] ?? "";
    const lines = [...list.matchAll(/\w+/g)].flatMap(([table]) =>
      // Of the scenario with many tables, all alike.
      Object.entries(COLUMNS[table.replace(/_\d+$/, "")] ?? {})
        .map(([name, type]) => `${JSON.stringify({ table, name, type, default_kind: "" })}\n`)
    );
    return answered(lines.join(""));
  }
  return answered(query.startsWith("SELECT version()") ? '{"version":"26.7.2.1"}\n' : "");
}

/** With a header of ClickHouse's own: a 200 without one stores nothing. */
function answered(body: string): Response {
  return new Response(body, { headers: { "X-ClickHouse-Server-Display-Name": "swallow" } });
}

async function insert(request: Request, token: string | null): Promise<Response> {
  if (request.headers.has("content-encoding")) return new Response("plain only", { status: 415 });
  let lines = 0;
  for await (const chunk of request.body ?? []) {
    const part = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    for (let at = part.indexOf(10); at >= 0; at = part.indexOf(10, at + 1)) lines++;
    bytes += part.length;
  }
  if (delayMs > 0) await new Promise((resolve) => setTimeout(resolve, delayMs));
  if (token === null || !tokens.has(token)) rows += lines;
  if (token !== null) tokens.add(token);
  if (tokens.size > 1000) tokens.delete(tokens.values().next().value!);
  return answered("");
}

serve({
  hostname: "127.0.0.1",
  port: Number(process.argv[2]),
  handler: handle,
  onError: (error) => console.error(error),
});
