/**
 * How fast a source reads: messages that wait at the broker already, through the collector into a sink that
 * swallows, beside the same client of the broker that only counts and acknowledges. A broker is one
 * function (`BROKERS`): it starts itself and fills a place.
 */
import { fileURLToPath } from "node:url";
import { eventually } from "../kit/wait.ts";
import type { BrokerName } from "./options.ts";
import type { PlainCosts } from "./plain.ts";
import { cpuSeconds, on, residentBytes, run, RUNTIME } from "./cores.ts";
import { jetstream } from "./jetstream.ts";
import { kafka } from "./kafka.ts";
import { rabbitmq } from "./rabbitmq.ts";
import { outbox } from "./outbox.ts";
import { redisList, redisStream } from "./redis.ts";
import type { Sink } from "./sinks.ts";
import type { Stage } from "./stage.ts";
import { QUICK_ARGS, startCollector } from "./subjects.ts";

/** A place at a broker that is full of messages, for two that read all of it, each for itself. */
export interface Full {
  /** The URL for `--source`; the table is `TABLE`. */
  readonly source: string;
  /**
   * A script beside this file, and its arguments, that reads all messages, acknowledges them and prints
   * its `PlainCosts`.
   */
  readonly plain: readonly string[];
}

/** A broker that runs. */
export interface BenchBroker {
  /** A fresh place. @param bodies of all messages, one after the other. */
  fill(bodies: readonly Uint8Array[]): Promise<Full>;
}

/** Starts a broker; it ends with the stage. */
export type StartBroker = (stage: Stage) => Promise<BenchBroker>;

export const BROKERS: Readonly<Record<BrokerName, StartBroker>> = {
  kafka,
  jetstream,
  "redis-stream": redisStream,
  "redis-list": redisList,
  outbox,
  rabbitmq,
};

export interface SourceLoad {
  readonly messages: number;
  /** Of one. */
  readonly bytes: number;
}

export interface SourceSample {
  readonly messagesPerSecond: number;
  readonly plainPerSecond: number;
  readonly ratio: number;
  /** User and system time, from the connection on. */
  readonly cpuSecondsPerMillion: number;
  readonly plainCpuSecondsPerMillion: number;
  /** The client's of the collector's: on a machine that others use as well it says more than `ratio`. */
  readonly cpuRatio: number;
  readonly peakRssBytes: number;
  readonly problems: readonly string[];
}

const WITHIN_MS = 120_000;
const CONNECTED = "a source is connected";

export async function measureSource(
  broker: BenchBroker,
  sink: Sink,
  load: SourceLoad,
  stage: Stage,
  binary?: string,
): Promise<SourceSample> {
  const { source, plain } = await broker.fill(bodiesOf(load));
  const alone = await measurePlain(plain);
  await sink.reset();
  const collector = await startCollector(sink, "disk", stage, {
    more: ["--source", source, ...QUICK_ARGS],
    binary,
  });
  const { shishi } = collector;
  let [fromMs, cpuBefore] = [0, 0];
  await eventually(() => {
    if (!shishi.lines().some(({ message }) => message === CONNECTED)) throw new Error("no source");
    fromMs = performance.now();
    cpuBefore = cpuSeconds(collector.pid);
  }, { withinMs: 20_000, everyMs: 5 });
  let toMs = 0;
  await eventually(async () => {
    const rows = await sink.rows();
    toMs = performance.now();
    if (rows < load.messages) throw new Error(`${rows} of ${load.messages} rows arrived`);
  }, { withinMs: WITHIN_MS, everyMs: 10 });
  const cpu = cpuSeconds(collector.pid) - cpuBefore;
  const { peakBytes } = residentBytes(collector.pid);
  const { ledger } = await collector.settle();
  const rows = await sink.rows();
  await collector.close();
  const messagesPerSecond = load.messages / ((toMs - fromMs) / 1000);
  const plainPerSecond = load.messages / alone.seconds;
  return {
    messagesPerSecond,
    plainPerSecond,
    ratio: messagesPerSecond / plainPerSecond,
    cpuSecondsPerMillion: cpu / load.messages * 1e6,
    plainCpuSecondsPerMillion: alone.cpuSeconds / load.messages * 1e6,
    cpuRatio: alone.cpuSeconds / cpu,
    peakRssBytes: peakBytes,
    problems: [
      ...(rows === load.messages ? [] : [`${rows} rows arrived of ${load.messages} messages`]),
      ...(ledger.dead + ledger.lost + ledger.rejected === 0 ? [] : ["rows are dead or lost"]),
    ],
  };
}

async function measurePlain([script = "", ...args]: readonly string[]): Promise<PlainCosts> {
  const path = fileURLToPath(new URL(script, import.meta.url));
  const [command, all] = on("server", RUNTIME, [path, ...args]);
  const told = await run(command, all, { withinMs: WITHIN_MS });
  return JSON.parse(told) as PlainCosts;
}

/** Rows of `TABLE`. */
function bodiesOf({ messages, bytes }: SourceLoad): Uint8Array[] {
  const encoder = new TextEncoder();
  return Array.from({ length: messages }, (_, n) => {
    const head = `{"eventType":"click","userId":"u${n}","properties":{"text":"`;
    return encoder.encode(`${head}${"x".repeat(Math.max(0, bytes - head.length - 3))}"}}`);
  });
}
