/**
 * What several collectors on one port (`--share-port`) bring and cost: the same load on one and on two,
 * 1,000 rows a request, so that the load itself costs little. Nothing is pinned: each collector shall have
 * a core if there is one. Where load, sink and collectors share two cores, rows/s cannot double; but CPU
 * seconds per million rows tell whether collectors stand in each other's way.
 *
 * As many connections for each: what a sync serves depends on how many requests wait for it, so half of them
 * would be another load. Beside them servers that only parse, one and two: processes that share
 * nothing but the machine, whose caches and memory cost two of them more than one.
 */
import { freePort } from "../kit/free_port.ts";
import { type Shishi, startShishi } from "../kit/shishi.ts";
import { eventually } from "../kit/wait.ts";
import { wrk } from "./closed_loop.ts";
import { cpuSeconds, on } from "./cores.ts";
import { problemsOf } from "./landed.ts";
import type { SharedBy } from "./results.ts";
import type { Scenario } from "./scenarios.ts";
import type { Sink } from "./sinks.ts";
import type { Stage } from "./stage.ts";
import { argsFor, BINARY, type Ledger, startReference } from "./subjects.ts";

export const SHARED: Scenario = {
  name: "S2",
  what: "NDJSON of 1,000 events, 16 connections for each collector",
  path: "/events",
  rows: 1000,
  tables: 0,
  connections: 16,
  encoding: null,
  references: [],
  targets: {},
};

export interface SharedSample {
  readonly rowsPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Of all collectors together, until all rows have left. */
  readonly cpuSecondsPerMillionRows: number;
  /** Rows of the collector that got the fewest, of all; 1 where there is one. */
  readonly leastShare: number;
  readonly problems: readonly string[];
}

const LEFT_WITHIN_MS = 20_000;
const COUNTS = ["received", "rejected", "stored", "dead", "held", "lost"] as const;

/** One of those that are measured together. */
interface One {
  readonly pid: number;
  /** Ends it; what it counted, null of a reference, which counts nothing. */
  readonly ended: () => Promise<Ledger | null>;
}

export async function measureShared(
  sink: Sink,
  who: { readonly by: SharedBy; readonly collectors: number },
  load: { readonly body: string; readonly seconds: number; readonly warmupSeconds: number },
  stage: Stage,
): Promise<SharedSample> {
  await sink.reset();
  const port = await freePort();
  const all: One[] = [];
  for (let n = 0; n < who.collectors; n++) all.push(await start(sink, who.by, port, n, stage));
  const url = `http://127.0.0.1:${port}`;
  const scenario = { ...SHARED, connections: SHARED.connections * who.collectors };
  let acceptedRows = 0;
  let unansweredRows = 0;
  let broken = 0;
  const run = async (seconds: number) => {
    const told = await wrk(url, scenario, load.body, seconds, "all");
    const rows = (told.requests - told.refused) * SHARED.rows;
    acceptedRows += rows;
    unansweredRows += scenario.connections * SHARED.rows;
    broken += told.broken;
    if (who.by === "parse") return { rows, told };
    await eventually(async () => {
      const arrived = await sink.rows();
      if (arrived < acceptedRows) throw new Error(`${arrived} of ${acceptedRows} rows arrived`);
    }, { withinMs: LEFT_WITHIN_MS });
    return { rows, told };
  };
  // Each process compiles what it runs often: that is not what more collectors cost.
  if (load.warmupSeconds > 0) await run(load.warmupSeconds);
  const used = () => all.reduce((sum, { pid }) => sum + cpuSeconds(pid), 0);
  const before = used();
  const { rows, told } = await run(load.seconds);
  const seconds = used() - before;
  const ledgers = (await Promise.all(all.map(({ ended }) => ended()))).filter((one) =>
    one !== null
  );
  const ledger = Object.fromEntries(
    COUNTS.map((name) => [name, ledgers.reduce((sum, one) => sum + one[name], 0)]),
  ) as unknown as Ledger;
  const problems = who.by === "parse" ? [] : problemsOf({
    acceptedRows,
    unansweredRows,
    sinkRows: await sink.rows(),
    settled: { ledger, statuses: new Map() },
  });
  if (broken > 0) problems.push(`${broken} requests got no answer`);
  return {
    rowsPerSecond: rows / (told.durationUs / 1e6),
    p50Ms: told.p50Us / 1000,
    p99Ms: told.p99Us / 1000,
    cpuSecondsPerMillionRows: seconds / Math.max(1, rows) * 1e6,
    leastShare: ledgers.length === 0
      ? NaN
      : Math.min(...ledgers.map(({ received }) => received)) / Math.max(1, ledger.received),
    problems,
  };
}

async function start(
  sink: Sink,
  by: SharedBy,
  port: number,
  n: number,
  stage: Stage,
): Promise<One> {
  if (by === "parse") {
    const { pid, close } = await startReference(by, stage, { core: "all", sharedPort: port });
    return { pid, ended: () => close().then(() => null) };
  }
  const args = [...argsFor(sink, by), "--listen", `127.0.0.1:${port}`];
  const [command, before] = on("all", BINARY, [...args, "--share-port", "--id", `bench-${n}`]);
  const shishi = await startShishi({ binary: command, args: before });
  stage.keep(shishi.close);
  await eventually(async () => {
    if ((await shishi.get("/readyz")).status !== 200) throw new Error("it is not ready");
  }, { withinMs: LEFT_WITHIN_MS });
  return { pid: shishi.pid, ended: () => stopped(shishi) };
}

/** Ends it as an operator would; its last line. */
async function stopped(shishi: Shishi): Promise<Ledger> {
  shishi.signal("SIGTERM");
  const { code, signal } = await shishi.exited;
  const last = shishi.lines().at(-1);
  if (code !== 0 || last === undefined) {
    throw new Error(`a collector ended with ${signal ?? code}:\n${shishi.stderr().slice(-2000)}`);
  }
  await shishi.close();
  return last as unknown as Ledger;
}
