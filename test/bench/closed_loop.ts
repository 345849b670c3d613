/** One run of a closed loop: wrk on one core, a server on the other, and what it cost. */
import { fileURLToPath } from "node:url";
import {
  busySince,
  type Core,
  coreTicks,
  cpuSeconds,
  on,
  residentBytes,
  run,
  writtenBytes,
} from "./cores.ts";
import { problemsOf } from "./landed.ts";
import type { Ack, Options } from "./options.ts";
import { type Reference, type Scenario, warmupOf } from "./scenarios.ts";
import type { Sink } from "./sinks.ts";
import type { Stage } from "./stage.ts";
import { QUICK_ARGS, startCollector, startReference, type Subject } from "./subjects.ts";

/** Of a server in a scenario, in one round. */
export interface Sample {
  readonly rowsPerSecond: number;
  readonly requestsPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly p999Ms: number;
  readonly peakRssBytes: number;
  readonly cpuSecondsPerMillionRows: number;
  /** Bytes that went to the disk for each byte that went to the sink; 0 for a reference, NaN where the sink does not count bytes. */
  readonly writtenRatio: number;
  /** Requests answered with 429. */
  readonly refused: number;
  /** Of one core, what the server used. */
  readonly serverBusy: number;
  /** Of one, how busy the core of the load was. */
  readonly loadCoreBusy: number;
  readonly acceptedRows: number;
  /** Null for a reference, which keeps nothing. */
  readonly landedRows: number | null;
  readonly problems: readonly string[];
}

export interface Told {
  readonly requests: number;
  readonly durationUs: number;
  readonly refused: number;
  readonly broken: number;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly p999Us: number;
}

const SCRIPT = fileURLToPath(new URL("./wrk.lua", import.meta.url));
/** The sink of the scenario `slow`: 40,000 rows/s with batches of 10,000, four at a time. */
const SLOW_MS = 1000;
/** wrk counts what takes longer as an error; an acknowledgement of ClickHouse may. */
const ANSWER_WITHIN_S = 60;

/** The load of a scenario; what it tells of itself. */
export async function wrk(
  url: string,
  scenario: Scenario,
  body: string,
  seconds: number,
  core: Core | "all" = "load",
): Promise<Told> {
  const { connections, encoding, path, tables } = scenario;
  const [command, args] = on(core, "wrk", [
    ...["-t1", `-c${connections}`, `-d${seconds}s`, "--timeout", `${ANSWER_WITHIN_S}s`],
    ...["-s", SCRIPT, url + path, "--", body, encoding ?? "", String(tables)],
  ]);
  const text = await run(command, args, { withinMs: (seconds + ANSWER_WITHIN_S + 10) * 1000 });
  const line = text.split("\n").find((line) => line.startsWith("{"));
  if (line === undefined) throw new Error(`wrk told no figures:\n${text}`);
  return JSON.parse(line) as Told;
}

/** So many runs in which no answer came are followed by another one. */
const SILENT_RUNS = 8;

interface Load {
  readonly scenario: Scenario;
  readonly body: string;
  readonly options: Options;
}

export async function measureReference(
  kind: Reference,
  load: Load,
  stage: Stage,
): Promise<Sample> {
  const subject = await startReference(kind, stage);
  const sample = await measure(subject, load, null);
  await subject.close();
  return sample;
}

export async function measureCollector(
  sink: Sink,
  ack: Ack,
  load: Load,
  stage: Stage,
  binary?: string,
): Promise<Sample> {
  const slow = load.scenario.name === "slow";
  await sink.reset();
  if (slow) await sink.slow(SLOW_MS);
  const subject = await startCollector(sink, ack, stage, {
    more: load.options.quick ? QUICK_ARGS : [],
    binary,
  });
  const sample = await measure(subject, load, sink);
  await subject.close();
  return sample;
}

async function measure(subject: Subject, load: Load, sink: Sink | null): Promise<Sample> {
  const { scenario, body, options } = load;
  const cpuBefore = cpuSeconds(subject.pid);
  const writtenBefore = writtenBytes(subject.pid);
  const warmupSeconds = warmupOf(scenario, options.warmupSeconds);
  const warm = warmupSeconds === 0 ? null : await wrk(subject.url, scenario, body, warmupSeconds);
  const loadBefore = coreTicks("load");
  const serverBefore = cpuSeconds(subject.pid);
  let told = await wrk(subject.url, scenario, body, options.seconds);
  const silent: Told[] = [];
  // The shortest run, on a machine that is busy with other things, may be over before the first answer.
  while (options.quick && told.requests === 0 && silent.length < SILENT_RUNS) {
    silent.push(told);
    told = await wrk(subject.url, scenario, body, options.seconds);
  }
  const serverSeconds = cpuSeconds(subject.pid) - serverBefore;
  const loadCoreBusy = busySince("load", loadBefore);
  if (scenario.name === "slow") await sink?.slow(0);
  const settled = await subject.settle();

  const runs = [...(warm === null ? [] : [warm]), ...silent, told];
  const rowsOf = (one: Told) => (one.requests - one.refused) * scenario.rows;
  const acceptedRows = runs.reduce((sum, one) => sum + rowsOf(one), 0);
  const brokenRequests = runs.reduce((sum, one) => sum + one.broken, 0);
  const landedRows = sink === null ? null : await sink.rows();
  const problems = brokenRequests === 0 ? [] : [`${brokenRequests} requests got no answer`];
  if (settled === null || landedRows === null) {
    if (acceptedRows === 0) problems.push("no row was accepted");
  } else {
    const unansweredRows = runs.length * scenario.connections * scenario.rows;
    problems.push(...problemsOf({ acceptedRows, unansweredRows, sinkRows: landedRows, settled }));
  }
  const seconds = told.durationUs / 1e6;
  return {
    rowsPerSecond: rowsOf(told) / seconds,
    requestsPerSecond: (told.requests - told.refused) / seconds,
    p50Ms: told.p50Us / 1000,
    p99Ms: told.p99Us / 1000,
    p999Ms: told.p999Us / 1000,
    peakRssBytes: residentBytes(subject.pid).peakBytes,
    cpuSecondsPerMillionRows: (cpuSeconds(subject.pid) - cpuBefore) /
      Math.max(1, acceptedRows) * 1e6,
    writtenRatio: sink === null
      ? 0
      : (writtenBytes(subject.pid) - writtenBefore) / await sink.bytes(),
    refused: settled?.statuses.get("429") ?? 0,
    serverBusy: serverSeconds / seconds,
    loadCoreBusy,
    acceptedRows,
    landedRows,
    problems,
  };
}
