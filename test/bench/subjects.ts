/** What is measured: the compiled collector as a user runs it, and the references beside it. */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { freePort } from "../kit/free_port.ts";
import { type Shishi, startShishi } from "../kit/shishi.ts";
import { tempDir } from "../kit/temp.ts";
import { eventually, pause } from "../kit/wait.ts";
import { startServer } from "../servers/process.ts";
import { type Core, on, RUNTIME } from "./cores.ts";
import type { Ack } from "./options.ts";
import { type Reference, TABLE } from "./scenarios.ts";
import type { Sink } from "./sinks.ts";
import type { Stage } from "./stage.ts";

export const BINARY = fileURLToPath(new URL("../../dist/shishi", import.meta.url));
/** Rows that are held leave within a flush interval, or some seconds where the sink is busy. */
const STUCK_MS = 20_000;
const READY_WITHIN_MS = 20_000;
const STOPPED_WITHIN_MS = 30_000;

export interface Ledger {
  readonly received: number;
  readonly rejected: number;
  readonly stored: number;
  readonly dead: number;
  readonly held: number;
  readonly lost: number;
}

/** What the collector counted, after all of it has left. */
export interface Settled {
  readonly ledger: Ledger;
  /** Requests by status, of the load alone but for 200. */
  readonly statuses: ReadonlyMap<string, number>;
}

export interface Subject {
  readonly url: string;
  readonly pid: number;
  /** Waits until nothing is held any more; null for a reference, which holds nothing. */
  settle(): Promise<Settled | null>;
  /** Ends it as an operator would; throws when it ends otherwise. */
  close(): Promise<void>;
}

export interface Collector extends Subject {
  readonly shishi: Shishi;
  settle(): Promise<Settled>;
}

export async function startReference(
  kind: Reference,
  stage: Stage,
  { core = "server", sharedPort = null }: {
    readonly core?: Core | "all";
    /** Another one may listen there; null: on a port of its own. */
    readonly sharedPort?: number | null;
  } = {},
): Promise<Subject> {
  const port = sharedPort ?? await freePort();
  const script = fileURLToPath(new URL("./reference.ts", import.meta.url));
  const [command, args] = on(core, RUNTIME, [
    ...[script, kind, String(port)],
    ...(sharedPort === null ? [] : ["shared"]),
  ]);
  const url = `http://127.0.0.1:${port}`;
  const server = await startServer({
    ...{ name: `the reference ${kind}`, command, args, dir: tempDir("reference"), url, port },
    probe: async () => void await (await fetch(url)).text(),
  });
  const close = stage.keep(server.close);
  return { url, pid: server.pid, settle: () => Promise.resolve(null), close };
}

/** The arguments of the collector for a run; everything else is its default. */
export function argsFor(sink: Sink, ack: Ack): string[] {
  return ["serve", "--clickhouse-url", sink.url, "--ack", ack, "--tables", `${TABLE},${TABLE}_*`];
}

/** A run of one second would end before the first acknowledgement of ClickHouse. */
export const QUICK_ARGS = ["--flush-interval", "100ms"];

/** Returns when it is ready: the first requests shall not meet a server that is still starting. */
export async function startCollector(
  sink: Sink,
  ack: Ack,
  stage: Stage,
  { more = [], core = "server", binary = BINARY }: {
    readonly more?: readonly string[];
    readonly core?: Core | "all";
    readonly binary?: string | undefined;
  } = {},
): Promise<Collector> {
  if (!existsSync(binary)) throw new Error("dist/shishi is missing: npm run build");
  const [command, args] = on(core, binary, [...argsFor(sink, ack), ...more]);
  const shishi = await startShishi({ binary: command, args });
  const kill = stage.keep(shishi.close);
  await eventually(async () => {
    const { status, text } = await shishi.get("/readyz");
    if (status !== 200) throw new Error(`/readyz answers ${status} ${text}\n${tail(shishi)}`);
  }, { withinMs: READY_WITHIN_MS });
  const before = await statusesOf(shishi);
  return {
    url: shishi.url,
    pid: shishi.pid,
    shishi,
    settle: () => settle(shishi, before),
    async close() {
      shishi.signal("SIGTERM");
      const late = setTimeout(() => void shishi.kill(), STOPPED_WITHIN_MS);
      const { code, signal } = await shishi.exited;
      clearTimeout(late);
      await kill();
      if (code !== 0) {
        throw new Error(`the collector ended with ${signal ?? code}:\n${tail(shishi)}`);
      }
    },
  };
}

async function settle(
  shishi: Shishi,
  before: ReadonlyMap<string, number>,
): Promise<Settled> {
  let ledger: Ledger = (await shishi.status()).ledger;
  let movedMs = performance.now();
  while (ledger.held > 0) {
    await pause(20);
    const { held } = ledger;
    ledger = (await shishi.status()).ledger;
    if (ledger.held !== held) movedMs = performance.now();
    if (performance.now() - movedMs > STUCK_MS) {
      throw new Error(`${held} rows are held and do not leave; its log ends with\n${tail(shishi)}`);
    }
  }
  const statuses = await statusesOf(shishi);
  for (const [status, times] of before) statuses.set(status, statuses.get(status)! - times);
  return { ledger, statuses };
}

/** Requests so far, by the status of their answer. */
async function statusesOf(shishi: Shishi): Promise<Map<string, number>> {
  const { text } = await shishi.get("/metrics");
  const line = /^shishi_http_requests_total\{status="(\d+)"\} (\d+)/gm;
  return new Map([...text.matchAll(line)].map(([, status, times]) => [status!, Number(times)]));
}

function tail(shishi: Shishi): string {
  return shishi.stderr().trimEnd().split("\n").slice(-10).join("\n");
}
