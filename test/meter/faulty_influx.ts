/**
 * A `fetch` that ends in an InfluxDB in memory, or badly. No sockets and no time of its own, so that
 * thousands of faults fit into a second and a failing sequence can be repeated.
 */

import { Buffer } from "node:buffer";
import type { Fetch } from "../../src/kernel/http.ts";
import type { Behaviour } from "../kit/fake_influx.ts";
import type { InfluxAnswer, MemoryInflux } from "../kit/memory_influx.ts";

/** `… after`: InfluxDB did the work, and its answer never came. `400`: its own refusal of all. */
export type Fault =
  | "pass"
  | "lost"
  | "hang after"
  | "500 after"
  | "half after"
  | "refuse"
  | "hang"
  | "half"
  | "endless"
  | "page"
  | "redirect"
  | "proxy 400"
  | "400"
  | "401"
  | "404"
  | "413"
  | "429"
  | "500"
  | "503";

/** What the fake server knows of the same. */
export const SOCKET_FAULTS: readonly Behaviour[] = [
  "lost",
  "refuse",
  "hang",
  "half",
  "half-error",
  "stall",
  "endless",
  "junk",
  { status: 200, body: "<h1>Welcome</h1>" },
  { status: 400, body: "<h1>Bad request</h1>" },
  { status: 400, body: '{"error":"unable to parse"}' },
  { status: 401, body: '{"error":"authorization failed"}' },
  { status: 413, body: '{"error":"Request Entity Too Large"}' },
  { status: 500, body: '{"error":"timeout"}' },
  { status: 503 },
];

const BODIES: Partial<Record<Fault, string>> = {
  page: "<h1>Welcome</h1>",
  "proxy 400": "<h1>Bad request</h1>",
  "400": '{"error":"unable to parse"}\n',
};
const STATUSES: Partial<Record<Fault, number>> = { page: 200, redirect: 302, "proxy 400": 400 };

export interface FaultyInflux {
  readonly fetch: Fetch;
  /** The faults of the next requests, in turn; lines that hold `poison` are refused by InfluxDB. */
  behave(faults: readonly Fault[], poison: string): void;
  requests(): number;
  /** Requests with a body that had been sent before. */
  repeated(): number;
  /** Most requests under way at once. */
  most(): number;
  /** Most points in one request. */
  mostPoints(): number;
}

export function faultyFetch(memory: MemoryInflux): FaultyInflux {
  let faults: readonly Fault[] = ["pass"];
  let poison = "";
  let at = 0;
  let requests = 0;
  let repeated = 0;
  let underWay = 0;
  let most = 0;
  let mostPoints = 0;
  const bodies = new Set<string>();

  /** Like a partial write: the good lines are stored, and the answer is 400. */
  function work(method: string, url: string, body: string): InfluxAnswer {
    const path = url.replace(/^https?:\/\/[^/]+/, "");
    if (poison === "" || !body.includes(poison)) return memory.answer({ method, path, body });
    const good = body.split("\n").filter((line) => !line.includes(poison)).join("\n");
    const answer = memory.answer({ method, path, body: good });
    if (answer.status !== 204) return answer;
    return { status: 400, body: '{"error":"partial write: dropped=1"}\n' };
  }

  async function answer(url: string, init: RequestInit): Promise<Response> {
    const { method = "GET" } = init;
    const body = String(init.body ?? "");
    if (bodies.has(body)) repeated++;
    bodies.add(body);
    mostPoints = Math.max(mostPoints, body.split("\n").length);
    const fault = faults[at++ % faults.length]!;
    const real = fault === "pass" || fault === "lost" || fault.endsWith("after")
      ? work(method, url, body)
      : null;
    if (fault === "pass") return response(real!.status, [real!.body]);
    if (fault === "refuse" || fault === "lost") throw new TypeError("connection reset");
    if (fault.startsWith("hang")) return await aborted(init.signal!);
    if (fault.startsWith("half")) return response(200, ["half"], "torn");
    if (fault === "endless") return response(400, ["x".repeat(10_000)], "endless");
    return response(STATUSES[fault] ?? parseInt(fault), [BODIES[fault] ?? ""]);
  }

  return {
    async fetch(url, init) {
      requests++;
      most = Math.max(most, ++underWay);
      try {
        return await answer(url, init);
      } finally {
        underWay--;
      }
    },
    behave(next, bad) {
      faults = next;
      poison = bad;
      at = 0;
    },
    requests: () => requests,
    repeated: () => repeated,
    most: () => most,
    mostPoints: () => mostPoints,
  };
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}

/** As much of a response as is looked at; its body needs no turn of the event loop. */
function response(
  status: number,
  parts: readonly string[],
  end: "whole" | "torn" | "endless" = "whole",
): Response {
  const left = parts.map((part) => Buffer.from(part));
  const read = () => {
    const value = end === "endless" ? left[0] : left.shift();
    if (value !== undefined) return Promise.resolve({ done: false, value });
    if (end === "torn") return Promise.reject(new TypeError("the body is cut short"));
    return Promise.resolve({ done: true, value });
  };
  const reader = { read, cancel: () => Promise.resolve() };
  return {
    status,
    headers: new Headers(),
    body: { getReader: () => reader },
  } as unknown as Response;
}
