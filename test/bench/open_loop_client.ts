/**
 * `open_loop_client.ts JSON` (an `OpenLoad`): posts by the clock, however slow the answers are. Each
 * request has a planned time, and its latency is counted from there, so a server that stalls cannot
 * hide it by holding up its own load (coordinated omission). Raw sockets: a client that costs little
 * does not delay what it measures; `late…` tells how much of the latency it made itself. Figures on
 * stdout as one line of JSON (`OpenFigures`).
 */
import { readFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import process from "node:process";
import type { OpenFigures, OpenLoad } from "./open_loop.ts";

const load = JSON.parse(process.argv[2]!) as OpenLoad;
const url = new URL(load.url);
const body = readFileSync(load.body);
const request = Buffer.concat([
  Buffer.from(
    `POST ${url.pathname} HTTP/1.1\r\nHost: ${url.host}\r\nContent-Type: application/json\r\n` +
      `Content-Length: ${body.length}\r\n\r\n`,
  ),
  body,
]);
const requestsPerSecond = load.rowsPerSecond / load.rows;
const warming = Math.round(requestsPerSecond * load.warmupSeconds);
const total = warming + Math.round(requestsPerSecond * load.seconds);
/** An answer that takes longer after the last request is none. */
const LAST_ANSWERS_MS = 45_000;

interface Line {
  readonly socket: Socket;
  /** Number of the request that is under way. */
  n: number;
  received: string;
}

const idle: Line[] = [];
/** By request; NaN where there is no answer. */
const latencyMs = new Float64Array(total).fill(NaN);
const lateMs = new Float64Array(total).fill(NaN);
const statuses: Record<string, number> = {};
let sent = 0;
let answered = 0;
let broken = 0;
let end: () => void = () => {};
const ended = new Promise<void>((resolve) => end = resolve);

await Promise.all(Array.from({ length: load.connections }, open));
const beganMs = performance.now() + 10;
/** Whole milliseconds: no timer is finer. */
const plannedMs = (n: number) => beganMs + Math.floor(n * 1000 / requestsPerSecond);
tick();
const limit = setTimeout(end, plannedMs(total) - beganMs + LAST_ANSWERS_MS);
await ended;
clearTimeout(limit);
const measured = (times: Float64Array) =>
  times.subarray(warming).filter((ms) => !Number.isNaN(ms)).sort();
const [latency, late] = [measured(latencyMs), measured(lateMs)];
const figures: OpenFigures = {
  planned: total,
  statuses,
  unanswered: total - answered,
  p50Ms: quantile(latency, 0.5),
  p99Ms: quantile(latency, 0.99),
  p999Ms: quantile(latency, 0.999),
  maxMs: quantile(latency, 1),
  lateP50Ms: quantile(late, 0.5),
  lateP99Ms: quantile(late, 0.99),
};
console.log(JSON.stringify(figures));
process.exit(0);

function open(): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(Number(url.port), url.hostname, () => {
      idle.push(line);
      resolve();
    });
    const line: Line = { socket, n: 0, received: "" };
    socket.setNoDelay(true);
    socket.setEncoding("latin1");
    socket.on("data", (text) => receive(line, String(text)));
    socket.once("error", reject);
    // Closed by the server in the middle: what was asked on it stays unanswered.
    socket.once("close", () => {
      const at = idle.indexOf(line);
      if (at >= 0) idle.splice(at, 1);
      else broken++;
      if (answered + broken >= total || broken >= load.connections) end();
    });
  });
}

function tick(): void {
  sendDue();
  if (sent < total) setTimeout(tick, 1);
}

/** Sends what is due, as far as there are free connections; what waits for one gets late. */
function sendDue(): void {
  const nowMs = performance.now();
  while (sent < total && plannedMs(sent) <= nowMs) {
    const line = idle.pop();
    if (line === undefined) return;
    lateMs[sent] = nowMs - plannedMs(sent);
    line.n = sent++;
    line.socket.write(request);
  }
}

function receive(line: Line, text: string): void {
  line.received += text;
  const headEnd = line.received.indexOf("\r\n\r\n");
  if (headEnd < 0) return;
  const length = Number(line.received.match(/\r\ncontent-length: *(\d+)/i)?.[1] ?? 0);
  if (line.received.length < headEnd + 4 + length) return;
  const status = line.received.slice(9, 12);
  statuses[status] = (statuses[status] ?? 0) + 1;
  latencyMs[line.n] = performance.now() - plannedMs(line.n);
  answered++;
  line.received = "";
  idle.push(line);
  if (answered === total) end();
  else sendDue();
}

function quantile(sorted: Float64Array, share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN;
}
