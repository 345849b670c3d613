/** The flags of the benchmark. Everything that is wrong is named, with what was wanted. */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { parseArgs } from "node:util";

export const PARTS = [
  "start",
  "S1",
  "S2",
  "S2t",
  "S3",
  "tables",
  "slow",
  "S4",
  "visible",
  "share-port",
  "sources",
] as const;
/** What runs unless it was asked for: brokers have to be installed first. */
const USUAL = PARTS.filter((part) => part !== "sources");
export const ACKS = ["memory", "disk", "clickhouse"] as const;
export const SINKS = ["swallow", "clickhouse"] as const;
/** What `sources` reads from. */
export const BROKER_NAMES = [
  "kafka",
  "jetstream",
  "redis-stream",
  "redis-list",
  "outbox",
  "rabbitmq",
] as const;
export type Part = typeof PARTS[number];
export type Ack = typeof ACKS[number];
export type SinkName = typeof SINKS[number];
export type BrokerName = typeof BROKER_NAMES[number];

export interface Options {
  readonly parts: readonly Part[];
  readonly acks: readonly Ack[];
  readonly sinks: readonly SinkName[];
  readonly brokers: readonly BrokerName[];
  readonly rounds: number;
  /** Of one run of a closed loop, measured. */
  readonly seconds: number;
  /** Before it, not measured. */
  readonly warmupSeconds: number;
  /** Of the open loop. */
  readonly openSeconds: number;
  readonly quick: boolean;
  readonly json: boolean;
  /** Another build of the collector that takes turns with dist/shishi; null = none. */
  readonly against: string | null;
}

export type Asked =
  | { readonly kind: "run"; readonly options: Options }
  | { readonly kind: "help" }
  | { readonly kind: "wrong"; readonly problems: readonly string[] };

export const HELP = `npm run bench [-- FLAGS]: measures dist/shishi beside two bare servers

  --quick        every kind of run in its shortest form, under two minutes; its figures mean little
  --only PARTS   ${PARTS.join(",")}
                 start = first answer, idle memory, size · S1 = one event a request · S2 = NDJSON of 100
                 events · S2t = the same as rows of a table · S3 = gzip of 1,000 events · tables =
                 10 rows a request for 1, 10, 50 and 200 tables in turn, 64 connections · slow = S2 into a
                 sink that is slower than the load · S4 = open loop · visible = from the
                 acknowledgement to a SELECT · share-port = 1,000 events a request on one collector and on
                 two that share a port, and on bare servers, on all cores · sources =
                 messages of 100 B and 1 KB that wait at a broker, beside its client alone (only when named
                 here; the brokers as the tests install them)
  --brokers B    of sources: ${BROKER_NAMES.join(",")}
  --ack ACKS     ${ACKS.join(",")}
  --into SINKS   swallow (answers every INSERT at once), clickhouse (the embedded one)
  --rounds N     how often each run is repeated, the servers taking turns (default 2)
  --seconds N    of one run (default 10); the open loop takes six times as long
  --against FILE another build of the collector, measured after each run of dist/shishi (start, closed
                 loops, sources), and the ratio of rows/s to it
  --json         JSON on stdout instead of tables; progress goes to stderr in any case
  --help

Exit code 1 when a run was broken (rows missing, a server that does not start, no answers), never for a
time; 2 when a flag is wrong or wrk is missing.
`;

export function readOptions(args: readonly string[]): Asked {
  let values;
  try {
    ({ values } = parseArgs({
      args: [...args],
      options: {
        quick: { type: "boolean", default: false },
        only: { type: "string" },
        ack: { type: "string" },
        into: { type: "string" },
        brokers: { type: "string" },
        rounds: { type: "string" },
        seconds: { type: "string" },
        json: { type: "boolean", default: false },
        against: { type: "string" },
        help: { type: "boolean", default: false },
      },
    }));
  } catch (problem) {
    return { kind: "wrong", problems: [(problem as Error).message] };
  }
  if (values.help) return { kind: "help" };
  const problems: string[] = [];
  const { quick, json } = values;
  const count = (name: string, text: string | undefined, usual: number, most: number) => {
    if (text === undefined) return usual;
    const number = Number(text);
    if (Number.isInteger(number) && number >= 1 && number <= most) return number;
    problems.push(`--${name}: a whole number from 1 to ${most} was wanted, got ${quoted(text)}`);
    return usual;
  };
  const some = <T extends string>(name: string, text: string | undefined, all: readonly T[]) => {
    if (text === undefined) return all;
    const asked = text.split(",").map((word) => word.trim());
    for (const word of asked.filter((word) => !(all as readonly string[]).includes(word))) {
      problems.push(`--${name}: one or more of ${all.join(",")} was wanted, got ${quoted(word)}`);
    }
    return all.filter((word) => asked.includes(word));
  };
  const seconds = count("seconds", values.seconds, quick ? 1 : 10, 3600);
  const options: Options = {
    parts: values.only === undefined ? USUAL : some("only", values.only, PARTS),
    acks: some("ack", values.ack, ACKS),
    sinks: some("into", values.into, SINKS),
    brokers: some("brokers", values.brokers, BROKER_NAMES),
    rounds: count("rounds", values.rounds, quick ? 1 : 2, 100),
    seconds,
    warmupSeconds: quick ? 0 : Math.min(2, seconds),
    openSeconds: quick ? 2 : seconds * 6,
    quick,
    json,
    against: values.against === undefined ? null : resolve(values.against),
  };
  if (options.against !== null && !existsSync(options.against)) {
    problems.push(
      `--against: a build of the collector was wanted, ${quoted(values.against!)} is not there`,
    );
  }
  return problems.length > 0 ? { kind: "wrong", problems } : { kind: "run", options };
}

function quoted(text: string): string {
  return JSON.stringify(text);
}
