/** S4: rows come by the clock. Starts the client on its core beside a collector, and tells what it saw. */
import { fileURLToPath } from "node:url";
import { cpuSeconds, on, residentBytes, run, RUNTIME } from "./cores.ts";
import { problemsOf } from "./landed.ts";
import type { Ack } from "./options.ts";
import type { Sink } from "./sinks.ts";
import type { Stage } from "./stage.ts";
import { startCollector } from "./subjects.ts";

export const ROWS_PER_SECOND = 5_000;

/** What the client is told. */
export interface OpenLoad {
  readonly url: string;
  /** The file with the body of each request. */
  readonly body: string;
  /** In the body. */
  readonly rows: number;
  readonly rowsPerSecond: number;
  readonly seconds: number;
  /** Before them, sent but not measured. */
  readonly warmupSeconds: number;
  readonly connections: number;
}

/** What the client tells. */
export interface OpenFigures {
  /** Requests, with those of the warming up. */
  readonly planned: number;
  readonly statuses: Readonly<Record<string, number>>;
  readonly unanswered: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly p999Ms: number;
  readonly maxMs: number;
  readonly lateP50Ms: number;
  readonly lateP99Ms: number;
}

export interface OpenSample extends OpenFigures {
  readonly rowsPerRequest: number;
  readonly peakRssBytes: number;
  readonly cpuSecondsPerMillionRows: number;
  readonly landedRows: number;
  readonly problems: readonly string[];
}

/**
 * One event a request, but a hundred where a request waits for ClickHouse: a second of single events
 * would be thousands of open connections.
 */
export function rowsPerRequest(ack: Ack): number {
  return ack === "clickhouse" ? 100 : 1;
}

const CLIENT = fileURLToPath(new URL("./open_loop_client.ts", import.meta.url));
const CONNECTIONS = 128;
/** More than the client waits for its last answers. */
const ENDS_WITHIN_S = 60;

export async function openLoop(
  load: Omit<OpenLoad, "rowsPerSecond" | "connections">,
): Promise<OpenFigures> {
  const whole: OpenLoad = { ...load, rowsPerSecond: ROWS_PER_SECOND, connections: CONNECTIONS };
  const [command, args] = on("load", RUNTIME, [CLIENT, JSON.stringify(whole)]);
  const withinMs = (load.warmupSeconds + load.seconds + ENDS_WITHIN_S) * 1000;
  return JSON.parse(await run(command, args, { withinMs }));
}

/** `bodies` by rows. */
export async function measureOpen(
  sink: Sink,
  ack: Ack,
  load: {
    readonly bodies: (rows: number) => string;
    readonly seconds: number;
    readonly warmupSeconds: number;
  },
  stage: Stage,
): Promise<OpenSample> {
  await sink.reset();
  const collector = await startCollector(sink, ack, stage);
  const cpuBefore = cpuSeconds(collector.pid);
  const rows = rowsPerRequest(ack);
  const told = await openLoop({
    url: `${collector.url}/events`,
    body: load.bodies(rows),
    rows,
    seconds: load.seconds,
    warmupSeconds: load.warmupSeconds,
  });
  const settled = await collector.settle();
  const taken = (told.statuses["202"] ?? 0) + (told.statuses["200"] ?? 0);
  const landedRows = await sink.rows();
  const sample = {
    ...told,
    rowsPerRequest: rows,
    peakRssBytes: residentBytes(collector.pid).peakBytes,
    cpuSecondsPerMillionRows: (cpuSeconds(collector.pid) - cpuBefore) /
      Math.max(1, taken * rows) * 1e6,
    landedRows,
    problems: [
      ...(told.unanswered > 0 ? [`${told.unanswered} requests got no answer`] : []),
      ...problemsOf({
        acceptedRows: taken * rows,
        unansweredRows: told.unanswered * rows,
        sinkRows: landedRows,
        settled,
      }),
    ],
  };
  await collector.close();
  return sample;
}
