/**
 * `reference.ts bare|parse|gunzip+parse PORT [shared]`: the runtime's own server doing the least that a collector
 * has to do with the same requests. bare reads the body and answers 202; parse also splits it into
 * lines and parses each; gunzip+parse unpacks it before.
 */
import process from "node:process";
import { gunzipSync } from "node:zlib";
import { serve } from "../../src/runtime/server.ts";
import type { Reference } from "./scenarios.ts";

const decoder = new TextDecoder();

function parse(text: string): number {
  let rows = 0;
  for (const line of text.split("\n")) {
    if (line === "") continue;
    JSON.parse(line);
    rows++;
  }
  return rows;
}

const work: Record<Reference, (request: Request) => Promise<number>> = {
  bare: async (request) => (await request.arrayBuffer()).byteLength,
  parse: async (request) => parse(await request.text()),
  "gunzip+parse": async (request) =>
    parse(decoder.decode(gunzipSync(new Uint8Array(await request.arrayBuffer())))),
};

const [kind, port, shared] = process.argv.slice(2);
const handle = work[kind as Reference];
serve({
  hostname: "127.0.0.1",
  port: Number(port),
  shared: shared === "shared",
  handler: async (request) => {
    // The probe of who started it.
    if (request.method === "GET") return new Response("Ok.\n");
    return new Response(`{"accepted":${await handle(request)}}`, { status: 202 });
  },
  onError: (error) => console.error(error),
});
